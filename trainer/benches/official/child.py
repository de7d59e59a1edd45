"""The official training step in one variant, measured whenever a line comes on stdin.

Runs in a private environment. The official modules are imported from the checkout that is given; models, loss, optimizer and
schedules are theirs, the variants replace what PyTorch users would replace without touching the method:

  eager     as published: attention as written out, AdamW parameter by parameter, EMA parameter by parameter, the
            norms of all gradients each step
  sdpa      torch.nn.functional.scaled_dot_product_attention instead, otherwise as published
  fused     sdpa, AdamW(fused=True), EMA by torch._foreach, no norms of gradients
  compiled  fused, and the three networks through torch.compile
"""

import copy
import json
import sys
import time

import torch
import torch.nn.functional as F

VARIANTS = ("eager", "sdpa", "fused", "compiled")


def masks(count: int, images: int, length: int, patches: int) -> list[torch.Tensor]:
    """Random ascending patch numbers; the values do not matter for speed, the lengths do."""
    draws = [torch.stack([torch.randperm(patches)[:length].sort().values for _ in range(images)]) for _ in range(count)]
    return draws


def attention(module, x):
    """What torch.nn.functional offers for the official module's forward pass."""
    images, tokens, width = x.shape
    qkv = module.qkv(x).view(images, tokens, 3, module.num_heads, width // module.num_heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*qkv.unbind(0), scale=module.scale)
    return module.proj(mixed.transpose(1, 2).reshape(images, tokens, width)), None


class Step:
    def __init__(self, work: dict) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(work["threads"])
        sys.path.insert(0, work["ijepa"])
        from src import helper
        from src.masks.utils import apply_masks
        from src.models import vision_transformer
        from src.utils.distributed import AllReduce
        from src.utils.logging import grad_logger
        from src.utils.tensors import repeat_interleave_batch

        self.apply_masks, self.repeat, self.all_reduce = apply_masks, repeat_interleave_batch, AllReduce.apply
        self.grad_logger = grad_logger
        self.variant = work["variant"]
        if self.variant != "eager":
            vision_transformer.Attention.forward = attention
        self.encoder, self.predictor = helper.init_model(
            device="cpu", patch_size=work["patch"], model_name=work["model"], crop_size=work["size"],
            pred_depth=work["predictor_depth"], pred_emb_dim=work["predictor_dim"])  # fmt: skip
        self.target = copy.deepcopy(self.encoder)
        for parameter in self.target.parameters():
            parameter.requires_grad = False
        self.optimizer, _, self.lr, self.weight_decay = helper.init_opt(
            encoder=self.encoder, predictor=self.predictor, wd=0.04, final_wd=0.4, start_lr=2e-4, ref_lr=1e-3, final_lr=1e-6,
            iterations_per_epoch=10_000, warmup=40, num_epochs=300)  # fmt: skip
        if self.variant in ("fused", "compiled"):
            for group in self.optimizer.param_groups:
                group["fused"], group["foreach"] = True, None
        if self.variant == "compiled":
            self.forward = [torch.compile(net, dynamic=False) for net in (self.target, self.encoder, self.predictor)]
        else:
            self.forward = [self.target, self.encoder, self.predictor]

        images, patches = work["batch"], (work["size"] // work["patch"]) ** 2
        self.images = torch.randn(images, 3, work["size"], work["size"])
        self.context = masks(1, images, work["context_len"], patches)
        self.targets = masks(4, images, work["target_len"], patches)

    def __call__(self) -> float:
        self.lr.step()
        self.weight_decay.step()
        target, encoder, predictor = self.forward
        with torch.no_grad():
            h = target(self.images)
            h = F.layer_norm(h, (h.size(-1),))
            h = self.repeat(self.apply_masks(h, self.targets), len(h), repeat=len(self.context))
        z = predictor(encoder(self.images, self.context), self.context, self.targets)
        loss = self.all_reduce(F.smooth_l1_loss(z, h))
        loss.backward()
        self.optimizer.step()
        if self.variant in ("eager", "sdpa"):
            self.grad_logger(self.encoder.named_parameters())
        self.optimizer.zero_grad()
        self.follow(0.996)
        return float(loss)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        fast, slow = list(self.encoder.parameters()), list(self.target.parameters())
        if self.variant in ("eager", "sdpa"):
            for q, k in zip(fast, slow):
                k.data.mul_(momentum).add_((1.0 - momentum) * q.detach().data)
        else:
            torch._foreach_mul_(slow, momentum)
            torch._foreach_add_(slow, fast, alpha=1.0 - momentum)


def main() -> None:
    # Whatever the official modules print, the answers have stdout for themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    work = json.loads(sys.argv[1])
    step = Step(work)
    for _ in sys.stdin:
        for _ in range(work["warmup"]):
            step()
        took = []
        for _ in range(work["steps"]):
            start = time.perf_counter()
            loss = step()
            took.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"step_ms": took, "loss": loss}), file=answers, flush=True)


if __name__ == "__main__":
    main()
