#include "dispatch.h"

#include <atomic>
#include <stdexcept>

namespace facemix {

// FACEMIX_ISAS is a list like X(baseline) X(avx2), narrowest first, written by CMakeLists.txt.
#define X(isa)                       \
    namespace isa {                  \
    extern const CpuKernels kernels; \
    }
FACEMIX_ISAS
#undef X

namespace {

const CpuKernels* const kCompiled[] = {
#define X(isa) &isa::kernels,
    FACEMIX_ISAS
#undef X
};

// What this CPU can run. It is asked once: to answer takes a virtual machine microseconds.
const std::vector<const CpuKernels*>& available() {
    static const std::vector<const CpuKernels*> found = [] {
        std::vector<const CpuKernels*> all;
        for (const CpuKernels* k : kCompiled)
            if (k->supported()) all.push_back(k);
        return all;
    }();
    return found;
}

// Takes no memory, so that kernels() cannot fail.
const CpuKernels* widest() {
    const CpuKernels* best = kCompiled[0];
    for (const CpuKernels* k : kCompiled)
        if (k->supported() && k->preferred()) best = k;
    return best;
}

std::atomic<const CpuKernels*>& chosen() {
    static std::atomic<const CpuKernels*> k{widest()};
    return k;
}

}  // namespace

std::vector<std::string> compiled_capabilities() {
    std::vector<std::string> names;
    for (const CpuKernels* k : kCompiled) names.push_back(k->capability);
    return names;
}

std::vector<std::string> available_capabilities() {
    std::vector<std::string> names;
    for (const CpuKernels* k : available()) names.push_back(k->capability);
    return names;
}

const CpuKernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

void use_capability(const std::string& name) {
    std::string have;
    for (const CpuKernels* k : available()) {
        if (name == k->capability) {
            chosen().store(k);
            return;
        }
        have += (have.empty() ? "" : ", ") + std::string(k->capability);
    }
    throw std::invalid_argument("capability must be one of " + have + " on this CPU, got " + name);
}

}  // namespace facemix
