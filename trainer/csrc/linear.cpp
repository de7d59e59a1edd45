// Linear layers by oneDNN's products, which libtorch has for torch.compile and which tch does not bind.

#include "shim.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string_view>

namespace {

using Bias = std::optional<at::Tensor>;

// rows (n, in) times weight (out, in) transposed, plus bias (out).
at::Tensor product(const at::Tensor& rows, const at::Tensor& weight, const Bias& bias) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const Bias&, std::string_view,
                               c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  return op.call(rows, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "none");
}

// Of rows (n, in), not of any shape: a view that is made inside of a function could not be written to.
struct Linear : torch::autograd::Function<Linear> {
  using Context = torch::autograd::AutogradContext;
  using Variables = torch::autograd::variable_list;

  static at::Tensor forward(Context* context, const at::Tensor& rows, const at::Tensor& weight,
                            const at::Tensor& bias) {
    context->save_for_backward({rows, weight});
    return product(rows, weight, bias);
  }

  static Variables backward(Context* context, const Variables& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &weight = saved[1], &gradient = gradients[0];
    at::Tensor of_rows, of_weight, of_bias;
    if (context->needs_input_grad(0)) of_rows = product(gradient, weight.t(), std::nullopt);
    if (context->needs_input_grad(1)) of_weight = product(gradient.t(), rows.t(), std::nullopt);
    if (context->needs_input_grad(2)) of_bias = gradient.sum(0);
    return {of_rows, of_weight, of_bias};
  }
};

bool is_for_onednn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto fits = [](const at::Tensor& tensor) { return tensor.is_cpu() && tensor.scalar_type() == at::kFloat; };
  // Under autocast the product is of bfloat16, which libtorch gives to oneDNN by itself.
  return fits(x) && fits(weight) && fits(bias) && weight.dim() == 2 && x.dim() >= 1 && x.numel() > 0 &&
         x.size(-1) == weight.size(1) && !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // namespace

extern "C" {

// x (…, in) times weight (out, in) transposed, plus bias (out): (…, out). The caller owns the result.
char* ijepa_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, int onednn,
                   at::Tensor** result) {
  return guarded([&] {
    at::Tensor y;
    if (onednn != 0 && is_for_onednn(*x, *weight, *bias)) {
      auto shape = x->sizes().vec();
      shape.back() = weight->size(0);
      y = Linear::apply(x->reshape({-1, weight->size(1)}), *weight, *bias).view(shape);
    } else {
      y = at::linear(*x, *weight, *bias);
    }
    *result = new at::Tensor(std::move(y));
  });
}

}  // extern "C"
