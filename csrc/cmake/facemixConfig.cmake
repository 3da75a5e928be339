include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/facemixTargets.cmake)
# CMake links what a static library takes of C++ where that language is enabled, and says nothing where it is not.
get_target_property(facemix_TYPE facemix::facemix TYPE)
if(facemix_TYPE STREQUAL "STATIC_LIBRARY" AND NOT CMAKE_CXX_COMPILER_LOADED)
  set(facemix_FOUND FALSE)
  set(facemix_NOT_FOUND_MESSAGE "the static library takes the C++ runtime: project(... LANGUAGES C CXX)")
endif()
