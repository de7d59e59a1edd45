#!/usr/bin/env python3
"""Record a reference set: a small I-JEPA trained for a few steps by the official code.

    make_reference.py --ijepa PATH --out DIR [--embed 48 --depth 2 ...]

PATH is a checkout of facebookresearch/ijepa, which is not part of this repository: its modules are imported from there
and nothing of them is kept. What comes out is what `trainer check-reference DIR` reads: random images, masks, weights,
named intermediate results, gradients, states and moments as safetensors, and `meta.json` with every dimension, the
per-step table, and how far float32 itself lies from float64 and autocast to bfloat16 from float32 (five steps are run
in each; in float32 with images and patches in several orders, of which the worst counts). Needs torch, numpy and
safetensors; runs on a CPU in seconds.

With --reduced, whole tensors give way to samples of them: the files X_sub.safetensors hold every ceil(n/2048)-th
element of tensors of n > 2048 elements, flattened, and `tensor_stats` sums over the whole.
"""

import argparse
import copy
import json
import math
import os
import subprocess
import sys
from functools import partial

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SAMPLED = 2048  # elements a sampled tensor keeps at most
ORDERS = 8  # of images and patches in which float32 is run: the error of a single run may be small by luck


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ijepa", required=True, help="checkout of facebookresearch/ijepa")
    add("--out", required=True, help="directory to write")
    add("--seed", type=int, default=1)
    add("--img", type=int, default=24, help="pixels along an image's side")
    add("--patch", type=int, default=4, help="pixels along a patch's side")
    add("--embed", type=int, default=24)
    add("--depth", type=int, default=2)
    add("--heads", type=int, default=3)
    add("--pemb", type=int, default=12, help="width of the predictor")
    add("--pdepth", type=int, default=1, help="depth of the predictor")
    add("--batch", type=int, default=4)
    add("--image-batches", type=int, default=3)
    add("--ipe", type=int, default=4, help="steps per epoch")
    add("--epochs", type=int, default=4)
    add("--warmup", type=float, default=0.6, help="epochs of warm-up")
    add("--ipe-scale", type=float, default=1.0)
    add("--lr", type=float, default=1e-3)
    add("--start-lr", type=float, default=2e-4)
    add("--final-lr", type=float, default=1e-6)
    add("--wd", type=float, default=0.04)
    add("--final-wd", type=float, default=0.4)
    add("--ema", type=float, nargs=2, default=[0.996, 1.0])
    add("--min-keep", type=int, default=3)
    add("--nenc2", action="store_true", help="add a case with two context masks")
    add("--reduced", action="store_true", help="sample large tensors instead of writing them whole")
    return parser.parse_args()


def main():
    args = arguments()
    sys.path.insert(0, args.ijepa)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    os.makedirs(args.out, exist_ok=True)
    recorder = Recorder(args.out)

    inputs, masks = draw_inputs(args)
    nets = build(args)
    recorder.save("inputs", inputs)
    recorder.save("init", state(nets))

    # The same run in both precisions: the second says how much of a difference is rounding.
    f32 = Run(args, copy.deepcopy(nets), torch.float32)
    reordered = [Run(args, copy.deepcopy(nets), torch.float32, shift=shift) for shift in range(1, ORDERS)]
    f64 = Run(args, copy.deepcopy(nets), torch.float64)
    # And under autocast, as `use_bfloat16` has it: how much of a difference is bfloat16.
    bf16 = Run(args, copy.deepcopy(nets), torch.float32, autocast=True)
    total = args.ipe * args.epochs
    for step in range(1, total + 1):
        images = inputs[f"images.{(step - 1) % args.image_batches}"]
        for run in (f32, f64, bf16, *reordered) if step <= 5 else (f32,):
            run.step(step, images, *masks[step - 1])

    recorder.save("forward", f32.taps)
    kept = ("context.out", "predictor.out", "target.raw", "loss")
    recorder.save("forward_f64", {name: f64.taps[name] for name in kept})
    recorder.save("grads_step1", f32.at[1]["grads"])
    if args.reduced:
        recorder.save_sampled("state_step1", f32.at[1]["state"])
        target = {n: t for n, t in f32.at[5]["state"].items() if n.startswith("target_encoder.")}
        recorder.save("state_step5", {n: t for n, t in f32.at[5]["state"].items() if n not in target})
        recorder.save_sampled("target_step5", target)
        recorder.save_sampled("grads_step5", f32.at[5]["grads"])
        recorder.save_sampled("adam_step5", f32.at[5]["adam"])
    else:
        recorder.save("state_step1", f32.at[1]["state"])
        recorder.save("state_step5", f32.at[5]["state"])
        recorder.save("grads_step5", f32.at[5]["grads"])
        recorder.save("adam_step5", f32.at[5]["adam"])
    recorded = meta(args, nets, [f32, *reordered], f64, bf16, recorder.stats)
    if args.nenc2:
        tensors, errors = two_contexts(args, nets, inputs["images.1"])
        recorder.save("nenc2", tensors)
        recorded["tolerance_torch_f32_vs_f64"]["grads_nenc2"] = errors
    recorder.write_meta(recorded)
    size = sum(entry.stat().st_size for entry in os.scandir(args.out))
    print(f"{args.out}: {total} steps, loss {f32.rows[0]['loss']:.4f} to {f32.rows[-1]['loss']:.4f}, {size} bytes")


# --- what goes in -----------------------------------------------------------------------------------------------------


def draw_inputs(args):
    """Random images, smooth enough to have structure, and the official collator's masks for every step."""
    inputs = {}
    for k in range(args.image_batches):
        coarse = torch.randn(args.batch, 3, 6, 6)
        smooth = F.interpolate(coarse, size=(args.img, args.img), mode="bilinear", align_corners=False)
        inputs[f"images.{k}"] = (smooth + 0.3 * torch.randn_like(smooth)).clamp(-2.1, 2.6)
    collate = collator(args, nenc=1, enc_mask_scale=(0.85, 1.0))
    masks = []
    for step in range(1, args.ipe * args.epochs + 1):
        _, enc, pred = collate([torch.zeros(1) for _ in range(args.batch)])
        masks.append((enc, pred))
        inputs.update({f"masks_enc.step{step}.{i}": mask for i, mask in enumerate(enc)})
        inputs.update({f"masks_pred.step{step}.{i}": mask for i, mask in enumerate(pred)})
    return inputs, masks


def collator(args, nenc, enc_mask_scale):
    from src.masks.multiblock import MaskCollator

    return MaskCollator(
        input_size=args.img, patch_size=args.patch, pred_mask_scale=(0.15, 0.2), enc_mask_scale=enc_mask_scale,
        aspect_ratio=(0.75, 1.5), nenc=nenc, npred=4, min_keep=args.min_keep, allow_overlap=False)


def build(args):
    """The three networks, with the official initialisation shaken so that no tensor is trivially 0 or 1."""
    from src.models.vision_transformer import VisionTransformer, vit_predictor
    from src.utils.tensors import trunc_normal_

    encoder = VisionTransformer(
        img_size=[args.img], patch_size=args.patch, embed_dim=args.embed, depth=args.depth, num_heads=args.heads,
        mlp_ratio=4, qkv_bias=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    predictor = vit_predictor(
        num_patches=encoder.patch_embed.num_patches, embed_dim=args.embed, predictor_embed_dim=args.pemb,
        depth=args.pdepth, num_heads=args.heads)
    with torch.no_grad():
        for net in (encoder, predictor):
            for module in net.modules():
                if isinstance(module, torch.nn.Linear):
                    trunc_normal_(module.weight, std=0.02)
            for name, parameter in net.named_parameters():
                if not parameter.requires_grad:
                    continue
                is_gain = parameter.ndim == 1 and name.endswith("weight")
                deviation = 0.1 if is_gain else 0.05 if parameter.ndim == 1 else 0.06
                parameter.add_(torch.randn_like(parameter) * deviation)
        target = copy.deepcopy(encoder)
        for name, parameter in target.named_parameters():
            parameter.requires_grad = False
            if not name.endswith("pos_embed"):
                parameter.add_(torch.randn_like(parameter) * 0.01)
    return {"encoder": encoder, "predictor": predictor, "target_encoder": target}


# --- the run ----------------------------------------------------------------------------------------------------------


def state(nets):
    named = {f"{net}.{name}": tensor for net in nets for name, tensor in nets[net].state_dict().items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def gradients(nets):
    named = [(f"{net}.{name}", p) for net in ("encoder", "predictor") for name, p in nets[net].named_parameters()]
    return {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def forward(nets, images, masks_enc, masks_pred, taps=None):
    """The loss of one batch by the official modules; `taps` receives the named intermediate results."""
    from src.masks.utils import apply_masks
    from src.utils.tensors import repeat_interleave_batch

    hooks = []

    def listen(module, name):
        hooks.append(module.register_forward_hook(lambda _, __, out: taps.__setitem__(name, out.detach().clone())))

    if taps is not None:
        listen(nets["encoder"].patch_embed, "context.patch_embed")
        listen(nets["encoder"], "context.out")
        listen(nets["predictor"], "predictor.out")
        for i, block in enumerate(nets["encoder"].blocks):
            listen(block, f"context.block{i}")
        for i, block in enumerate(nets["predictor"].predictor_blocks):
            listen(block, f"predictor.block{i}")
    with torch.no_grad():
        raw = nets["target_encoder"](images)
        normed = F.layer_norm(raw, (raw.size(-1),))
        masked = apply_masks(normed, masks_pred)
        h = repeat_interleave_batch(masked, len(images), repeat=len(masks_enc))
    z = nets["predictor"](nets["encoder"](images, masks_enc), masks_enc, masks_pred)
    loss = F.smooth_l1_loss(z, h)
    for hook in hooks:
        hook.remove()
    if taps is not None:
        taps.update({"target.raw": raw, "target.layer_norm": normed, "target.masked": masked, "target.final": h})
        taps["loss"] = loss.detach().reshape(1)
    return loss


class Run:
    """The official optimisation of one copy of the networks, in one precision. With a `shift` images and
    patches stand in another order, which changes nothing but the rounding of sums."""

    def __init__(self, args, nets, kind, autocast=False, shift=0):
        from src.helper import init_opt

        self.args, self.kind, self.autocast, self.shift = args, kind, autocast, shift
        self.nets = {name: net.to(kind) for name, net in nets.items()}
        self.optimizer, _, self.scheduler, self.wd_scheduler = init_opt(
            encoder=nets["encoder"], predictor=nets["predictor"], iterations_per_epoch=args.ipe,
            start_lr=args.start_lr, ref_lr=args.lr, warmup=args.warmup, num_epochs=args.epochs, wd=args.wd,
            final_wd=args.final_wd, final_lr=args.final_lr, use_bfloat16=False, ipe_scale=args.ipe_scale)
        self.rows, self.losses, self.at, self.taps = [], [], {}, {}

    def momentum(self, step):
        first, last = self.args.ema
        steps = self.args.ipe * self.args.epochs * self.args.ipe_scale
        i = min(step - 1, int(steps))  # the official generator ends here; hold its last value
        return first + i * (last - first) / steps

    def step(self, step, images, masks_enc, masks_pred):
        from src.utils.logging import grad_logger

        lr, wd = self.scheduler.step(), self.wd_scheduler.step()
        taps = self.taps if step == 1 else None
        images, masks_enc, masks_pred = shifted(self.shift, images, masks_enc, masks_pred)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            loss = forward(self.nets, images.to(self.kind), masks_enc, masks_pred, taps)
        loss.backward()
        grads = gradients(self.nets)
        self.optimizer.step()
        norms = grad_logger(self.nets["encoder"].named_parameters())
        self.optimizer.zero_grad()
        momentum = self.momentum(step)
        with torch.no_grad():
            for fast, slow in zip(self.nets["encoder"].parameters(), self.nets["target_encoder"].parameters()):
                slow.mul_(momentum).add_((1.0 - momentum) * fast)
        self.losses.append(float(loss.detach()))
        self.rows.append({
            "step": step, "epoch": (step - 1) // self.args.ipe + 1, "itr": (step - 1) % self.args.ipe,
            "loss": float(loss.detach()), "lr": lr, "wd": wd, "mask_enc": masks_enc[0].shape[1],
            "mask_pred": masks_pred[0].shape[1], "momentum": momentum,
            "grad_stats": {key: float(getattr(norms, key)) for key in ("first_layer", "last_layer", "min", "max", "avg")},
        })
        if step in (1, 5):
            self.at[step] = {"state": state(self.nets), "grads": grads, "adam": self.moments()}

    def moments(self):
        named = {f"{n}.{name}": p for n in ("encoder", "predictor") for name, p in self.nets[n].named_parameters()}
        kept = {name: self.optimizer.state[p] for name, p in named.items() if p in self.optimizer.state}
        return {f"{key}.{name}": kept[name][key].clone() for key in ("exp_avg", "exp_avg_sq") for name in kept}


def shifted(by, images, masks_enc, masks_pred):
    """The same images, and the same patches of each, in another order."""
    shift = lambda masks: [mask.roll((by, by), (0, 1)) for mask in masks]
    return images.roll(by, 0), shift(masks_enc), shift(masks_pred)


def two_contexts(args, nets, images):
    """One batch with two context masks, on the initial weights; and the error of float32 in its gradients."""
    collate = collator(args, nenc=2, enc_mask_scale=(0.3, 0.6))
    _, masks_enc, masks_pred = collate([torch.zeros(1) for _ in range(args.batch)])

    def differentiated(kind, shift=0):
        mine, taps = {name: copy.deepcopy(net).to(kind) for name, net in nets.items()}, {}
        forward(mine, *shifted(shift, images.to(kind), masks_enc, masks_pred), taps).backward()
        return gradients(mine), taps

    grads, taps = differentiated(torch.float32)
    result = {f"masks_enc.{i}": mask for i, mask in enumerate(masks_enc)}
    result.update({f"masks_pred.{i}": mask for i, mask in enumerate(masks_pred)})
    result.update({name: taps[name] for name in ("target.final", "context.out", "predictor.out", "loss")})
    result.update({f"grad.{name}": sampled(tensor) for name, tensor in grads.items()})
    exact, _ = differentiated(torch.float64)
    others = [differentiated(torch.float32, shift)[0] for shift in range(1, ORDERS)]
    return result, gradient_errors([grads, *others], exact)


# --- what comes out ---------------------------------------------------------------------------------------------------


def sampled(tensor):
    flat = tensor.flatten()
    return flat[:: math.ceil(flat.numel() / SAMPLED)].clone() if flat.numel() > SAMPLED else flat


def statistics(tensor):
    x = tensor.detach().double().flatten()
    return {"shape": list(tensor.shape), "sum": float(x.sum()), "l2": float(x.norm()), "absmax": float(x.abs().max()),
            "dotcos": float((x * torch.arange(x.numel(), dtype=torch.float64).cos()).sum())}


class Recorder:
    """Writes the files and keeps the statistics of whole tensors."""

    def __init__(self, folder):
        self.folder, self.stats = folder, {}

    def save(self, name, tensors):
        for key, tensor in tensors.items():
            if tensor.is_floating_point():
                self.stats[f"{name}:{key}"] = statistics(tensor)
        self.write(name, tensors)

    def save_sampled(self, name, tensors):
        self.stats.update({f"{name}_full:{key}": statistics(tensor) for key, tensor in tensors.items()})
        self.write(f"{name}_sub", {key: sampled(tensor) for key, tensor in tensors.items()})

    def write(self, name, tensors):
        tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        save_file(tensors, os.path.join(self.folder, f"{name}.safetensors"))

    def write_meta(self, meta):
        with open(os.path.join(self.folder, "meta.json"), "w") as file:
            json.dump(meta, file)
            file.write("\n")


def error(f32, f64):
    difference = f32.double() - f64
    return {"max_abs": float(difference.abs().max()), "rel_l2": float(difference.norm() / f64.norm().clamp_min(1e-300)),
            "ref_absmax": float(f64.abs().max())}


def worst(errors):
    """The largest of each figure over several runs."""
    return {key: max(error[key] for error in errors) for key in errors[0]}


def gradient_errors(runs, exact):
    found = {name: worst([error(run[name], exact[name]) for run in runs]) for name in exact}
    return {name: {key: row[key] for key in ("max_abs", "ref_absmax")} for name, row in found.items()}


def state_error(f32, f64, init):
    difference, update = f32.double() - f64, f64 - init.double()
    return {"max_abs": float(difference.abs().max()), "rms": float(difference.square().mean().sqrt()),
            "update_max": float(update.abs().max()), "update_rms": float(update.square().mean().sqrt())}


def key_biases(f32, f64):
    """The key third of every qkv.bias: its gradient is 0 but for rounding, which AdamW blows up."""
    result = {}
    for name, grad in f32.at[1]["grads"].items():
        if not name.endswith("attn.qkv.bias"):
            continue
        width = grad.numel() // 3
        q, k, v = grad.split(width)
        moved = {s: (f32.at[s]["state"][name].double() - f64.at[s]["state"][name]).abs().split(width) for s in (1, 5)}
        result[name] = {
            "k_absmax_f32": float(k.abs().max()),
            "k_absmax_f64": float(f64.at[1]["grads"][name].split(width)[1].abs().max()),
            "q_absmax": float(q.abs().max()), "v_absmax": float(v.abs().max()),
            "state1_k_maxdiff": float(moved[1][1].max()), "state5_k_maxdiff": float(moved[5][1].max()),
            "state5_rest_maxdiff": float(max(moved[5][0].max(), moved[5][2].max())),
        }
    return result


def bfloat16(f32, bf16, init):
    """How far the official autocast lies from float32, as relative l2 norms: of values, and of what training changed.
    Without the key third of qkv.bias, whose gradient is nothing but rounding."""

    def distance(name, ours, theirs, base=None):
        if name.endswith("attn.qkv.bias"):
            ours, theirs, base = (t if t is None else torch.cat(t.chunk(3)[::2]) for t in (ours, theirs, base))
        size = theirs.double() if base is None else theirs.double() - base.double()
        return float((ours.double() - theirs.double()).norm() / size.norm().clamp_min(1e-300))

    result = {"outputs": {n: distance(n, bf16.taps[n], t) for n, t in f32.taps.items()}}
    for step in (1, 5):
        ours, theirs = bf16.at[step], f32.at[step]
        result[f"grads_step{step}"] = {n: distance(n, ours["grads"][n], t) for n, t in theirs["grads"].items()}
        moved = [n for n in theirs["state"] if not n.endswith("pos_embed")]
        result[f"updates_step{step}"] = {n: distance(n, ours["state"][n], theirs["state"][n], init[n]) for n in moved}
    result["moments"] = {n: distance(n, bf16.at[5]["adam"][n], t) for n, t in f32.at[5]["adam"].items()}
    result["losses"] = [abs(a / b - 1) for a, b in zip(bf16.losses, f32.losses)]
    return result


def meta(args, nets, runs, f64, bf16, stats):
    f32 = runs[0]
    names = {p: f"{net}.{name}" for net in f32.nets for name, p in f32.nets[net].named_parameters()}
    init = state(nets)
    tolerance = {}
    for step in (1, 5):
        states, exact = [run.at[step]["state"] for run in runs], f64.at[step]["state"]
        tolerance[f"state_step{step}"] = {
            name: worst([state_error(run[name], exact[name], init[name]) for run in states]) for name in exact}
        grads = [run.at[step]["grads"] for run in runs]
        tolerance[f"grads_step{step}"] = gradient_errors(grads, f64.at[step]["grads"])
    tolerance["loss_f64"] = f64.losses
    tolerance["qkv_bias_k_part"] = key_biases(f32, f64)
    commit = subprocess.run(["git", "-C", args.ijepa, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    target_pos = lambda step: f32.at[step]["state"]["target_encoder.pos_embed"] - init["target_encoder.pos_embed"]
    grads = (f32.at[1]["grads"], f64.at[1]["grads"])
    groups = f32.optimizer.param_groups
    return {
        "set": os.path.basename(os.path.abspath(args.out)),
        "official_commit": commit.strip() or None,
        "torch": torch.__version__,
        "config": {
            "seed": args.seed, "img": args.img, "patch": args.patch, "embed": args.embed, "depth": args.depth,
            "heads": args.heads, "pemb": args.pemb, "pdepth": args.pdepth, "B": args.batch,
            "n_img_batches": args.image_batches, "ipe": args.ipe, "epochs": args.epochs, "warmup": args.warmup,
            "ipe_scale": args.ipe_scale, "sub": SAMPLED if args.reduced else None, "lr": args.lr,
            "start_lr": args.start_lr, "final_lr": args.final_lr, "wd": args.wd, "final_wd": args.final_wd,
            "ema": args.ema,
        },
        "mask": {
            "allow_overlap": False, "aspect_ratio": [0.75, 1.5], "enc_mask_scale": [0.85, 1.0],
            "min_keep": args.min_keep, "num_enc_masks": 1, "num_pred_masks": 4, "patch_size": args.patch,
            "pred_mask_scale": [0.15, 0.2],
        },
        "mlp_ratio": 4, "qkv_bias": True, "ln_eps": 1e-6, "target_ln_eps": 1e-5,
        "adamw": {
            "betas": list(groups[0]["betas"]), "eps": groups[0]["eps"],
            "groups": [{
                "n": len(group["params"]), "wd_exclude": group.get("WD_exclude", False), "betas": list(group["betas"]),
                "eps": group["eps"], "params": [names[p] for p in group["params"]],
            } for group in groups],
        },
        "params_without_grad": ["encoder.pos_embed", "predictor.predictor_pos_embed"],
        "smooth_l1_beta": 1.0,
        "f32_vs_f64": {
            "outputs": {name: error(f32.taps[name], f64.taps[name]) for name in f32.taps},
            "grads": {name: error(grads[0][name], grads[1][name]) for name in grads[0]},
        },
        "loss_f64": f64.losses[0],
        "steps": f32.rows,
        "opt_step_counts": [5.0],
        "tensor_stats": stats,
        "target_pos_embed_drift": {str(step): float(target_pos(step).abs().max()) for step in (1, 5)},
        "tolerance_torch_f32_vs_f64": tolerance,
        "bf16_vs_f32": bfloat16(f32, bf16, init),
    }


if __name__ == "__main__":
    main()
