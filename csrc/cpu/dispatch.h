// The choice of an instruction set at run time.
#pragma once

#include <string>
#include <vector>

#include "../kernels.h"

namespace facemix {

// Names of the compiled instruction sets that this CPU has, the widest last.
std::vector<std::string> available_capabilities();

// The names of all compiled instruction sets.
std::vector<std::string> compiled_capabilities();

// The kernels in use: the widest available that the CPU is good at, until chosen otherwise.
const CpuKernels& kernels();

// Chooses by name; throws std::invalid_argument for one that is not available.
void use_capability(const std::string& name);

}  // namespace facemix
