"""The official training step in one variant, measured whenever a line comes on stdin.

Runs in a Python with PyTorch, for `official.py` and for `trainer bench --compare-python`. The official modules are
imported from the checkout that is given; models, loss, optimizer and schedules are theirs, the variants replace what
PyTorch users would replace without touching the method:

  eager     as published: attention as written out, PyTorch's own choice of AdamW (parameter by parameter on a CPU,
            torch._foreach on a GPU), EMA parameter by parameter, the norms of all gradients each step, and, with
            bfloat16, GradScaler
  sdpa      torch.nn.functional.scaled_dot_product_attention instead, otherwise as published
  fused     sdpa, AdamW(fused=True), EMA by torch._foreach, no norms of gradients, no GradScaler
  compiled  fused, and the three networks through torch.compile

The one argument is a JSON object: `ijepa`, `variant`, `model`, `patch`, `size`, `batch`, `predictor_depth`,
`predictor_dim`, `context_len`, `target_len`, `threads`, `warmup` and `steps`; where they differ from a float32 step on
the CPU under one context and four target masks, also `device`, `bfloat16`, `contexts` and `targets`; and `patience`,
the seconds after which a turn is given up. Images and masks are on the device before the step begins. TF32 is off.

Each line is answered by one of JSON: the duration of each timed step, the last loss and the peak memory, or, at the end
of a process that cannot go on, `failed` with the reason.
"""

import contextlib
import copy
import json
import resource
import signal
import sys
import time
import traceback

import torch
import torch.nn.functional as F

VARIANTS = ("eager", "sdpa", "fused", "compiled")


def masks(count: int, images: int, length: int, patches: int, device: torch.device) -> list[torch.Tensor]:
    """Random ascending patch numbers; the values do not matter for speed, the lengths do."""
    draws = [torch.stack([torch.randperm(patches)[:length].sort().values for _ in range(images)]) for _ in range(count)]
    return [draw.to(device) for draw in draws]


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
        self.variant, self.device = work["variant"], torch.device(work.get("device", "cpu"))
        self.bfloat16 = work.get("bfloat16", False)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if self.variant != "eager":
            vision_transformer.Attention.forward = attention
        # Weights are drawn where they stay: for the large models a CPU would take most of the time of a turn.
        with self.device:
            self.encoder, self.predictor = helper.init_model(
                device=self.device, patch_size=work["patch"], model_name=work["model"], crop_size=work["size"],
                pred_depth=work["predictor_depth"], pred_emb_dim=work["predictor_dim"])  # fmt: skip
        self.target = copy.deepcopy(self.encoder)
        for parameter in self.target.parameters():
            parameter.requires_grad = False
        self.optimizer, self.scaler, self.lr, self.weight_decay = helper.init_opt(
            encoder=self.encoder, predictor=self.predictor, wd=0.04, final_wd=0.4, start_lr=2e-4, ref_lr=1e-3,
            final_lr=1e-6, iterations_per_epoch=10_000, warmup=40, num_epochs=300,
            use_bfloat16=self.bfloat16)  # fmt: skip
        if self.variant in ("fused", "compiled"):
            self.scaler = None
            for group in self.optimizer.param_groups:
                group["fused"], group["foreach"] = True, None
        if self.variant == "compiled":
            self.forward = [torch.compile(net, dynamic=False) for net in (self.target, self.encoder, self.predictor)]
        else:
            self.forward = [self.target, self.encoder, self.predictor]

        images, patches = work["batch"], (work["size"] // work["patch"]) ** 2
        self.images = torch.randn(images, 3, work["size"], work["size"]).to(self.device)
        self.context = masks(work.get("contexts", 1), images, work["context_len"], patches, self.device)
        self.targets = masks(work.get("targets", 4), images, work["target_len"], patches, self.device)

    def __call__(self) -> float:
        self.lr.step()
        self.weight_decay.step()
        target, encoder, predictor = self.forward
        with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext():
            with torch.no_grad():
                h = target(self.images)
                h = F.layer_norm(h, (h.size(-1),))
                h = self.repeat(self.apply_masks(h, self.targets), len(h), repeat=len(self.context))
            z = predictor(encoder(self.images, self.context), self.context, self.targets)
            loss = self.all_reduce(F.smooth_l1_loss(z, h))
        if self.scaler:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
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


    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_memory(self) -> int:
        """The most bytes that tensors had on the GPU, or that this process had resident."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def turn(self, warmup: int, steps: int) -> dict:
        for _ in range(warmup):
            self()
        took = []
        for _ in range(steps):
            self.synchronise()
            start = time.perf_counter()
            loss = self()
            self.synchronise()
            took.append((time.perf_counter() - start) * 1e3)
        return {"step_ms": took, "loss": loss, "peak_memory_bytes": self.peak_memory()}


def main() -> None:
    # Whatever the official modules print, the answers have stdout for themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    work = json.loads(sys.argv[1])
    step = None
    for _ in sys.stdin:
        # Its default action ends the process, even in the middle of a compilation.
        signal.alarm(work.get("patience", 0))
        try:
            step = step or Step(work)
            answer = step.turn(work["warmup"], work["steps"])
        except Exception as error:
            traceback.print_exc()
            reason = (str(error).strip().splitlines() or [""])[0]
            answer = {"failed": f"{type(error).__name__}: {reason}"}
        signal.alarm(0)
        print(json.dumps(answer), file=answers, flush=True)
        if "failed" in answer:
            sys.exit(1)


if __name__ == "__main__":
    main()
