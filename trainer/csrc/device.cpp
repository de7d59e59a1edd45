// What concerns a GPU, through the parts of libtorch that need no CUDA header: its settings and its allocator.

#include "shim.h"

#include <ATen/Context.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <c10/core/CachingDeviceAllocator.h>

extern "C" {

// Whether float32 products on a GPU may use the tensor cores' 10-bit mantissa: matrix products and convolutions.
char* ijepa_allow_tf32(int allowed) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed != 0);
    at::globalContext().setAllowTF32CuDNN(allowed != 0);
  });
}

// Whether attention may use cuDNN, which makes a plan for each shape it meets: with masks of other lengths at every
// step, minutes of them.
char* ijepa_allow_cudnn_attention(int allowed) {
  return guarded([&] { at::globalContext().setSDPUseCuDNN(allowed != 0); });
}

// Allows some implementations of attention: bit 0 the plain one, 1 flash, 2 memory-efficient, 3 cuDNN's (the numbers of
// at::SDPBackend). `previous` receives those allowed before.
char* ijepa_attention_backends(unsigned allowed, unsigned* previous) {
  return guarded([&] {
    auto& context = at::globalContext();
    *previous = unsigned(context.userEnabledMathSDP()) | unsigned(context.userEnabledFlashSDP()) << 1 |
                unsigned(context.userEnabledMemEfficientSDP()) << 2 | unsigned(context.userEnabledCuDNNSDP()) << 3;
    context.setSDPUseMath(allowed & 1);
    context.setSDPUseFlash(allowed >> 1 & 1);
    context.setSDPUseMemEfficient(allowed >> 2 & 1);
    context.setSDPUseCuDNN(allowed >> 3 & 1);
  });
}

// The number of the implementation that attention over these would use; -1 if none of those allowed can.
char* ijepa_attention_choice(at::Tensor* query, at::Tensor* key, at::Tensor* value, int64_t* choice) {
  return guarded([&] { *choice = at::_fused_sdp_choice(*query, *key, *value); });
}

// Bytes that libtorch's allocator has handed out on the device of `like`: now, and at most since the last reset.
char* ijepa_device_memory(at::Tensor* like, int64_t* now, int64_t* peak, int reset) {
  return guarded([&] {
    const auto device = like->device();
    auto* allocator = c10::getDeviceAllocator(device.type());
    if (reset != 0) allocator->resetPeakStats(device.index());
    const auto stats = allocator->getDeviceStats(device.index());
    const auto& bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
    *now = bytes.current;
    *peak = bytes.peak;
  });
}

}  // extern "C"
