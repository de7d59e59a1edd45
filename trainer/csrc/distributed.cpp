// Processes that train together, over PyTorch's c10d: the store at which they meet, collectives, and the reducer that
// sums gradients while the backward pass goes on.
//
// Gradients are summed, never divided: a rank's loss is a share of the whole step's already, so that any number of
// ranks, with equal shares or not, computes the same.

#include "shim.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <ATen/core/jit_type.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

namespace {

using c10d::ProcessGroup;
using c10d::ProcessGroupGloo;
using Milliseconds = std::chrono::milliseconds;

// Our stand-ins for Gloo's headers must give these classes the layout that libtorch was compiled with.
static_assert(sizeof(ProcessGroupGloo) == 488 && sizeof(ProcessGroupGloo::Options) == 176,
              "not the ProcessGroupGloo of PyTorch 2.11: compare csrc/gloo_stub with its headers");

// Buckets of PyTorch's DistributedDataParallel: a small first one, so that sending begins early.
constexpr size_t first_bucket = size_t{1} << 20;
// Tensors that are broadcast together.
constexpr size_t broadcast_buffer = size_t{250} << 20;

struct Store {
  c10::intrusive_ptr<c10d::TCPStore> tcp;
};

struct Group {
  c10::intrusive_ptr<ProcessGroup> processes;
};

// Sums a bucket over all ranks, in its own type or rounded to bfloat16 for the way.
class Sum : public c10d::CppCommHookInterface<c10::intrusive_ptr<ProcessGroup>> {
  const bool as_bfloat16;

 public:
  Sum(c10::intrusive_ptr<ProcessGroup> processes, bool as_bfloat16)
      : CppCommHookInterface(std::move(processes)), as_bfloat16(as_bfloat16) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    at::Tensor whole = bucket.getBufferRef();
    if (!as_bfloat16) {
      Tensors tensors{whole};
      return state_->allreduce(tensors)->getFuture();
    }
    Tensors tensors{whole.to(at::kBFloat16)};
    return state_->allreduce(tensors)->getFuture()->then(
        [whole](c10::ivalue::Future& sum) -> c10::IValue {
          const c10::IValue value = sum.value();
          whole.copy_(value.isTensorList() ? value.toTensorVector().at(0) : value.toTensor());
          return whole;
        },
        c10::TensorType::get());
  }
};

// libtorch tells on stderr of every address without a name; errors arrive as exceptions all the same.
void speak_of_errors_only() {
  if (getenv("TORCH_CPP_LOG_LEVEL") == nullptr) setenv("TORCH_CPP_LOG_LEVEL", "ERROR", 0);
  static const bool once = (c10::initLogging(), true);
  (void)once;
}

}  // namespace

extern "C" {

// Connects to the store at host:port, or serves it: there if `serve` is set, and on the listening socket
// `listening` if that is not negative.
char* ijepa_store_open(const char* host, uint16_t port, bool serve, int listening, int64_t timeout_ms, Store** store) {
  return guarded([&] {
    speak_of_errors_only();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = Milliseconds(timeout_ms);
    if (listening >= 0) options.masterListenFd = listening;
    *store = new Store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

void ijepa_store_drop(Store* store) { delete store; }

char* ijepa_store_set(Store* store, const char* key, const uint8_t* data, size_t length) {
  return guarded([&] { store->tcp->set(key, std::vector<uint8_t>(data, data + length)); });
}

// Waits until the key is there; the caller frees the value with ijepa_free.
char* ijepa_store_get(Store* store, const char* key, int64_t timeout_ms, char** data, size_t* length) {
  return guarded([&] {
    store->tcp->wait({key}, Milliseconds(timeout_ms));
    const std::vector<uint8_t> value = store->tcp->get(key);
    *length = value.size();
    *data = static_cast<char*>(malloc(value.size() + 1));
    if (*data == nullptr) throw std::bad_alloc();
    std::copy(value.begin(), value.end(), *data);
  });
}

char* ijepa_store_has(Store* store, const char* key, bool* found) {
  return guarded([&] { *found = store->tcp->check({key}); });
}

char* ijepa_store_add(Store* store, const char* key, int64_t amount, int64_t* sum) {
  return guarded([&] { *sum = store->tcp->add(key, amount); });
}

// Joins ranks 0..world over Gloo. It listens at `interface`, or else at the local address `address`. Meeting may take
// five times `join_ms`; each wait for a peer after that, `wait_ms`.
char* ijepa_group_join(Store* store, const char* prefix, int rank, int world, const char* interface,
                       const char* address, int64_t join_ms, int64_t wait_ms, Group** group) {
  return guarded([&] {
    const auto options = ProcessGroupGloo::Options::create(Milliseconds(join_ms));
    options->devices.push_back(interface != nullptr ? ProcessGroupGloo::createDeviceForInterface(interface)
                                                    : ProcessGroupGloo::createDeviceForHostname(address));
    const auto keys = c10::make_intrusive<c10d::PrefixStore>(prefix, store->tcp);
    const auto gloo = c10::make_intrusive<ProcessGroupGloo>(keys, rank, world, options);
    static_cast<c10d::Backend*>(gloo.get())->setTimeout(Milliseconds(wait_ms));
    const auto processes = c10::make_intrusive<ProcessGroup>(keys, rank, world);
    processes->setBackend(c10::DeviceType::CPU, ProcessGroup::GLOO, gloo);
    // By way of the host's memory.
    processes->setBackend(c10::DeviceType::CUDA, ProcessGroup::GLOO, gloo);
    processes->setDefaultBackend(ProcessGroup::GLOO);
    processes->setGroupName(prefix);
    *group = new Group{processes};
  });
}

void ijepa_group_drop(Group* group) { delete group; }

// Fills `gathered`, one tensor for each rank, with every rank's `own`.
char* ijepa_group_all_gather(Group* group, at::Tensor* own, at::Tensor* const* gathered, size_t world) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<Tensors> outputs{list(gathered, world)};
    Tensors inputs{*own};
    group->processes->allgather(outputs, inputs)->wait();
  });
}

// Overwrites the tensors by those of rank `root`.
char* ijepa_group_broadcast(Group* group, at::Tensor* const* tensors, size_t count, int root) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    c10d::broadcast_coalesced(group->processes, list(tensors, count), broadcast_buffer, root);
  });
}

// Makes a reducer of the parameters' gradients; all of them must require gradients. It sends about `bucket_bytes` at a
// time, or all at once after the backward pass if that is 0.
char* ijepa_reducer_new(Group* group, at::Tensor* const* parameters, size_t count, bool as_bfloat16,
                        size_t bucket_bytes, c10d::Reducer** reducer) {
  return guarded([&] {
    const size_t bucket = bucket_bytes != 0 ? bucket_bytes : size_t{1} << 60;
    const size_t first = bucket_bytes != 0 ? std::min(first_bucket, bucket) : bucket;
    const Tensors leaves = list(parameters, count);
    for (const at::Tensor& leaf : leaves) {
      if (!leaf.requires_grad()) throw std::invalid_argument("a parameter that needs no gradient cannot be reduced");
    }
    const std::vector<bool> sparse(count, false);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(leaves, {first, bucket}, sparse));
    // The last layers' gradients are there first.
    std::reverse(buckets.begin(), buckets.end());
    auto made = std::make_unique<c10d::Reducer>(
        leaves, std::move(buckets), group->processes, sparse, static_cast<int64_t>(bucket),
        /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
        /*param_names=*/std::unordered_map<size_t, std::string>{}, static_cast<int64_t>(first),
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>{});
    made->register_comm_hook(std::make_unique<Sum>(group->processes, as_bfloat16));
    *reducer = made.release();
  });
}

void ijepa_reducer_drop(c10d::Reducer* reducer) { delete reducer; }

// Has the next backward pass sum the gradients over all ranks, beside those that were accumulated before it.
char* ijepa_reducer_expect(c10d::Reducer* reducer) {
  return guarded([&] {
    reducer->prepare_for_forward();
    reducer->rebuild_buckets();
    reducer->prepare_for_backward({});
  });
}

// Fails unless that backward pass summed every gradient.
char* ijepa_reducer_check(c10d::Reducer* reducer) {
  return guarded([&] { reducer->check_finalized(); });
}

}  // extern "C"
