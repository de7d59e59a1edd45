// Activation checkpointing: a part of a network whose intermediate results are not kept for the backward pass but
// computed a second time when it gets there. The part's forward function is Rust's and is called back.

#include "shim.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

extern "C" {
// Computes `*output`, a new tensor that the callee hands over; returns null or a message made by malloc.
using Forward = char* (*)(const void* state, const at::Tensor* input, at::Tensor** output);
using Drop = void (*)(void* state);
}

namespace {

using torch::autograd::AutogradContext;

// The Rust closure, and under which autocast it is called first.
struct Part : torch::CustomClassHolder {
  const Forward function;
  const Drop drop;
  void* const state;
  c10::DeviceType device = c10::DeviceType::CPU;
  bool autocast = false;
  at::ScalarType autocast_type = at::kFloat;

  Part(Forward function, Drop drop, void* state) : function(function), drop(drop), state(state) {}
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() override { drop(state); }

  at::Tensor operator()(const at::Tensor& input) const {
    at::Tensor* output = nullptr;
    if (char* message = function(state, &input, &output)) {
      const std::string text = message;
      free(message);
      throw std::runtime_error(text);
    }
    return *std::unique_ptr<at::Tensor>(output);
  }
};

// Autocast as it was in the forward pass. The backward pass runs outside of it, on a GPU even in another thread.
class Autocast {
  const Part& part;
  const bool was_enabled;
  const at::ScalarType previous_type;

 public:
  explicit Autocast(const Part& part)
      : part(part),
        was_enabled(at::autocast::is_autocast_enabled(part.device)),
        previous_type(at::autocast::get_autocast_dtype(part.device)) {
    at::autocast::set_autocast_dtype(part.device, part.autocast_type);
    at::autocast::set_autocast_enabled(part.device, part.autocast);
    at::autocast::increment_nesting();
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
  ~Autocast() {
    // Without this, the copies of the part's weights would outlive their use.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(part.device, was_enabled);
    at::autocast::set_autocast_dtype(part.device, previous_type);
  }
};

struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, at::TensorList parameters,
                            c10::intrusive_ptr<Part> part) {
    Tensors saved{input};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    const at::Tensor output = (*part)(input);  // Function::apply has turned gradients off
    context->saved_data["part"] = c10::IValue::make_capsule(std::move(part));
    return output;
  }

  // The gradients of input and parameters; the part has none.
  static Tensors backward(AutogradContext* context, Tensors gradients) {
    Tensors inputs = context->get_saved_variables();
    const auto part = c10::static_intrusive_pointer_cast<Part>(context->saved_data["part"].toCapsule());
    // Cut off from the graph, which goes on from the gradient that this function returns.
    inputs[0] = inputs[0].detach().requires_grad_();
    at::Tensor output;
    {
      const at::AutoGradMode gradients_on(true);
      const Autocast autocast(*part);
      output = (*part)(inputs[0]);
    }
    Tensors result = torch::autograd::grad({output}, inputs, gradients);
    result.emplace_back();
    return result;
  }
};

}  // namespace

extern "C" {

// output = function(state, input), differentiable with respect to the input and the parameters, which must be all that
// `function` uses and require gradients. `drop(state)` is called once, whatever happens.
char* ijepa_recomputed(Forward function, Drop drop, void* state, at::Tensor* input, at::Tensor* const* parameters,
                       size_t count, at::Tensor** output) {
  return guarded([&] {
    auto part = c10::make_intrusive<Part>(function, drop, state);
    part->device = input->device().type();
    part->autocast = at::autocast::is_autocast_enabled(part->device);
    part->autocast_type = at::autocast::get_autocast_dtype(part->device);
    const Tensors leaves = list(parameters, count);
    *output = new at::Tensor(Recompute::apply(*input, at::TensorList(leaves), std::move(part)));
  });
}

}  // extern "C"
