// oneDNN's linear layer, which libtorch has for torch.compile and which tch does not bind.

#include "shim.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string_view>

namespace {

// The operators that torch.compile uses for linear layers on a CPU: bias, activation or sum in the product's own pass.
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool gelu) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  return op.call(x, weight, bias, gelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(), "none");
}

at::Tensor onednn_linear_add(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& to) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                               const std::optional<at::Tensor>&, std::string_view);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "binary").typed<Signature>();
  return op.call(x, to, weight, bias, "add");
}

// The same with gradients, which are plain products. Of rows (n, width): a view made in here could not be written to.
struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& rows, const at::Tensor& weight,
                            const at::Tensor& bias) {
    context->save_for_backward({rows, weight});
    return onednn_linear(rows, weight, bias, false);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1], &gradient = gradients[0];
    at::Tensor of_rows, of_weight, of_bias;
    if (context->needs_input_grad(0)) of_rows = at::mm(gradient, weight);
    if (context->needs_input_grad(1)) of_weight = at::mm(gradient.t(), rows);
    if (context->needs_input_grad(2)) of_bias = gradient.sum(0);
    return {of_rows, of_weight, of_bias};
  }
};

}  // namespace

extern "C" {

// A linear layer by oneDNN on a CPU in float32, with nothing, a GELU or a sum with `to` (not null) behind it; only the
// first has gradients. The caller owns the result.
char* ijepa_linear(at::Tensor* x, at::Tensor* weight, at::Tensor* bias, int gelu, at::Tensor* to, at::Tensor** result) {
  return guarded([&] {
    auto shape = x->sizes().vec();
    const at::Tensor rows = x->reshape({-1, weight->size(1)}).contiguous();
    shape.back() = weight->size(0);
    at::Tensor y;
    if (to != nullptr) {
      y = onednn_linear_add(rows, *weight, *bias, to->reshape({-1, weight->size(0)}).contiguous());
    } else if (gelu != 0) {
      y = onednn_linear(rows, *weight, *bias, true);
    } else {
      y = Linear::apply(rows, *weight, *bias);
    }
    y = y.view(shape);
    *result = new at::Tensor(std::move(y));
  });
}

int ijepa_has_onednn() {
  static const bool there = at::hasMKLDNN() &&
                            c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""}).has_value() &&
                            c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", "binary"}).has_value();
  return there && at::globalContext().userEnabledMkldnn() && !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // extern "C"
