#!/usr/bin/env python3
"""The other side of `trainer import` and `trainer export`: PyTorch, the official code and transformers themselves.

    interop.py save --ijepa PATH --out FILE.pth.tar        train a small I-JEPA by the official code, save as it saves
    interop.py load FILE.pth.tar                           torch.load(weights_only=True), and what was found
    interop.py continue --ijepa PATH FILE.pth.tar          the official load_checkpoint, then one step of its optimiser
    interop.py features DIR TENSORS.safetensors            IJepaModel.from_pretrained(DIR) on
                                                           `images`, beside `features`
    interop.py resave DIR OUT                              IJepaModel.from_pretrained(DIR).save_pretrained(OUT)

PATH is a checkout of facebookresearch/ijepa, which is not part of this repository: its functions are imported from
there and nothing of them is kept. Results are JSON on stdout; tensors in them are shape and CRC-32 of their float32
bytes, under the names that `trainer` uses. `save` is the only one whose networks may have sizes of their own. `make
interop` runs all of them from trainer/tests/interop.rs.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import zlib
from contextlib import redirect_stdout
from functools import partial

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("save").add_argument
    add("--ijepa", required=True)
    add("--out", required=True)
    add("--seed", type=int, default=1)
    add("--img", type=int, default=16, help="pixels along an image's side")
    add("--patch", type=int, default=4, help="pixels along a patch's side")
    add("--embed", type=int, default=16)
    add("--depth", type=int, default=2)
    add("--heads", type=int, default=2)
    add("--pemb", type=int, default=8, help="width of the predictor")
    add("--pdepth", type=int, default=1, help="depth of the predictor")
    add("--batch", type=int, default=2)
    add("--ipe", type=int, default=3, help="steps per epoch")
    add("--epochs", type=int, default=2, help="epochs to train")
    commands.add_parser("load").add_argument("file")
    add = commands.add_parser("continue").add_argument
    add("--ijepa", required=True)
    add("file")
    add("--model", default="vit_tiny")
    add("--img", type=int, default=32)
    add("--patch", type=int, default=8)
    add("--pemb", type=int, default=48)
    add("--pdepth", type=int, default=1)
    add("--bfloat16", action="store_true", help="as under use_bfloat16: the gradient scaler's state must be there")
    add = commands.add_parser("features").add_argument
    add("folder")
    add("tensors")
    add = commands.add_parser("resave").add_argument
    add("folder")
    add("out")
    args = parser.parse_args()
    torch.manual_seed(getattr(args, "seed", 0))
    torch.set_num_threads(1)
    steps = {"save": save, "load": load, "continue": go_on, "features": features, "resave": resave}
    with redirect_stdout(sys.stderr):  # the official code logs there
        result = steps[args.command](args)
    print(json.dumps(result))


# --- the official code ------------------------------------------------------------------------------------------------


class Official:
    """Networks and optimiser as the official `main` has them: wrapped, four groups, schedules."""

    def __init__(self, networks, ipe, bfloat16):
        from src.helper import init_opt

        with tempfile.TemporaryDirectory() as folder:
            torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        self.encoder, self.predictor = networks
        self.target_encoder = copy.deepcopy(self.encoder)
        self.optimizer, self.scaler, self.scheduler, self.wd_scheduler = init_opt(
            encoder=self.encoder, predictor=self.predictor, iterations_per_epoch=ipe, start_lr=2e-4, ref_lr=1e-3,
            warmup=1,
            num_epochs=10, wd=0.04, final_wd=0.4, final_lr=1e-6, use_bfloat16=False, ipe_scale=1.0)  # fmt: skip
        # What use_bfloat16 makes is off where there is no GPU; this one keeps its state on a CPU.
        self.scaler = torch.amp.GradScaler("cpu") if bfloat16 else None
        wrap = torch.nn.parallel.DistributedDataParallel
        self.encoder = wrap(self.encoder, static_graph=True)
        self.predictor = wrap(self.predictor, static_graph=True)
        self.target_encoder = wrap(self.target_encoder)
        for parameter in self.target_encoder.parameters():
            parameter.requires_grad = False

    def step(self, images, context, targets):
        from src.masks.utils import apply_masks

        self.scheduler.step()
        self.wd_scheduler.step()
        with torch.no_grad():
            h = self.target_encoder(images)
            h = apply_masks(torch.nn.functional.layer_norm(h, (h.size(-1),)), targets)
        loss = torch.nn.functional.smooth_l1_loss(self.predictor(self.encoder(images, context), context, targets), h)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for slow, fast in zip(self.target_encoder.parameters(), self.encoder.parameters()):
                slow.mul_(0.9).add_(0.1 * fast)
        return float(loss.detach())

    def networks(self):
        return {"encoder": self.encoder, "predictor": self.predictor, "target_encoder": self.target_encoder}

    def tensors(self):
        """Every tensor by our names; the optimiser's are found by the parameter they belong to, not by its number."""
        found, names = {}, {}
        for network, module in self.networks().items():
            for name, parameter in module.module.named_parameters():
                found[f"{network}.{name}"] = parameter
                names[parameter] = f"{network}.{name}"
        for parameter, state in self.optimizer.state.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                found[f"{moment}.{names[parameter]}"] = state[moment]
            found["step"] = state["step"]
        return found


def batch(seed, images, side, patches):
    draw = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(patches, generator=draw) for _ in range(images)])
    context, targets = order[:, : patches // 2], [order[:, patches // 2 : patches // 2 + 3], order[:, -3:]]
    return torch.randn(images, 3, side, side, generator=draw), [context], targets


def save(args):
    sys.path.insert(0, args.ijepa)
    from src.models.vision_transformer import VisionTransformer, vit_predictor

    encoder = VisionTransformer(
        img_size=[args.img], patch_size=args.patch, embed_dim=args.embed, depth=args.depth, num_heads=args.heads,
        mlp_ratio=4, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))  # fmt: skip
    predictor = vit_predictor(
        num_patches=encoder.patch_embed.num_patches, embed_dim=args.embed, predictor_embed_dim=args.pemb,
        depth=args.pdepth, num_heads=args.heads)  # fmt: skip
    official = Official((encoder, predictor), args.ipe, bfloat16=True)
    for step in range(args.ipe * args.epochs):
        loss = official.step(*batch(step, args.batch, args.img, encoder.patch_embed.num_patches))
    saved = {name: network.state_dict() for name, network in official.networks().items()}
    saved |= {"opt": official.optimizer.state_dict(), "scaler": official.scaler.state_dict(), "epoch": args.epochs}
    saved |= {"loss": loss, "batch_size": args.batch, "world_size": 1, "lr": 1e-3}
    torch.save(saved, args.out)
    return {"epoch": args.epochs, "loss": loss, "tensors": sums(official.tensors())}


def go_on(args):
    sys.path.insert(0, args.ijepa)
    from src.helper import init_model, load_checkpoint

    device = torch.device("cpu")
    networks = init_model(
        device, patch_size=args.patch, model_name=args.model, crop_size=args.img, pred_depth=args.pdepth,
        pred_emb_dim=args.pemb)  # fmt: skip
    official = Official(networks, ipe=3, bfloat16=args.bfloat16)
    *_, epoch = load_checkpoint(
        device=device, r_path=args.file, opt=official.optimizer, scaler=official.scaler,
        **official.networks())  # fmt: skip
    tensors = sums(official.tensors())
    loss = official.step(*batch(0, 2, args.img, (args.img // args.patch) ** 2))
    return {"epoch": epoch, "tensors": tensors, "loss": loss, "steps": float(official.tensors()["step"])}


# --- PyTorch and transformers -----------------------------------------------------------------------------------------


def load(args):
    loaded = torch.load(args.file, map_location="cpu", weights_only=True)
    networks = {name: loaded.pop(name) for name in ("encoder", "predictor", "target_encoder")}
    state = loaded["opt"].pop("state")
    tensors = {f"{name}.{key}": tensor for name, network in networks.items() for key, tensor in network.items()}
    return loaded | {
        "tensors": sums(tensors),
        "moments": len(state),
        "types": sorted({type(n).__name__ for n in networks.values()}),
    }


def features(args):
    from safetensors.torch import load_file
    from transformers import AutoImageProcessor, AutoModel, IJepaModel

    model, notes = IJepaModel.from_pretrained(args.folder, output_loading_info=True)
    tensors = load_file(args.tensors)
    with torch.no_grad():
        found = model.eval()(tensors["images"]).last_hidden_state
    processor = AutoImageProcessor.from_pretrained(args.folder)
    return {
        "difference": float((found - tensors["features"]).abs().max()),
        "largest": float(tensors["features"].abs().max()),
        "unmatched": sorted(map(str, [*notes["missing_keys"], *notes["unexpected_keys"], *notes["mismatched_keys"]])),
        "auto": type(AutoModel.from_pretrained(args.folder)).__name__,
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "side": processor.size["height"],
    }


def resave(args):
    from transformers import IJepaModel

    IJepaModel.from_pretrained(args.folder).save_pretrained(args.out)
    return sorted(os.listdir(args.out))


def sums(tensors):
    bits = {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in tensors.items()}
    return {name: [list(tensor.shape), zlib.crc32(bits[name])] for name, tensor in tensors.items()}


if __name__ == "__main__":
    main()
