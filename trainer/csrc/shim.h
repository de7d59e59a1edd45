// What every file of the shim shares.
//
// Conventions: a tensor is `at::Tensor*` as tch holds it, a list is an array of them and a length. Every function
// returns null, or a message that the caller frees with ijepa_free: no exception may cross into Rust.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstring>
#include <exception>
#include <vector>

using Tensors = std::vector<at::Tensor>;

inline Tensors list(at::Tensor* const* tensors, size_t count) {
  Tensors result;
  result.reserve(count);
  for (size_t i = 0; i < count; i++) result.push_back(*tensors[i]);
  return result;
}

template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is not a std::exception");
  }
}
