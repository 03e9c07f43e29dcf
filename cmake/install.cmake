# Installs the headers, the libraries, a CMake package and pkg-config files. Everything is relative to the prefix, so
# that an installed tree may be moved.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ashlar)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ashlar DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")
install(TARGETS ashlar EXPORT ashlar_targets)
install(TARGETS ashlar_io EXPORT ashlar_io_targets)
install(TARGETS ashlar_cuda EXPORT ashlar_cuda_targets)
install(EXPORT ashlar_targets NAMESPACE ashlar:: DESTINATION ${package_dir} FILE ashlarTargets.cmake)
install(EXPORT ashlar_io_targets NAMESPACE ashlar:: DESTINATION ${package_dir} FILE ashlarIoTargets.cmake)
install(EXPORT ashlar_cuda_targets NAMESPACE ashlar:: DESTINATION ${package_dir} FILE ashlarCudaTargets.cmake)

# What a static library leaves for its user to link; a shared one brings it along.
get_target_property(type ashlar TYPE)
set(ASHLAR_STATIC OFF)
if(type STREQUAL "STATIC_LIBRARY")
  set(ASHLAR_STATIC ON)
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/ashlarConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/package/ashlarConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/ashlarConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/ashlarConfig.cmake ${PROJECT_BINARY_DIR}/package/ashlarConfigVersion.cmake
        DESTINATION ${package_dir})

# pkg-config: ${pcfiledir} leads to the prefix unless the library folder was given as an absolute path.
set(pc_prefix ${CMAKE_INSTALL_PREFIX})
set(pc_libdir ${CMAKE_INSTALL_FULL_LIBDIR})
set(pc_includedir ${CMAKE_INSTALL_FULL_INCLUDEDIR})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  file(RELATIVE_PATH up /p/${pkgconfig_dir} /p)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
  set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
endif()
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(pc_libs_private)
if(ASHLAR_HAS_ONEDNN)
  list(APPEND pc_libs_private -ldnnl)  # oneDNN has no pkg-config file
endif()
if(ASHLAR_OPENMP)
  foreach(library IN LISTS OpenMP_CXX_LIB_NAMES)
    get_filename_component(folder "${OpenMP_${library}_LIBRARY}" DIRECTORY)
    if(NOT folder IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
      list(APPEND pc_libs_private -L${folder})
    endif()
    list(APPEND pc_libs_private -l${library})
  endforeach()
endif()
list(JOIN pc_libs_private " " pc_libs_private)
# Not Requires.private: with --static, pkg-config would ask for the development files of all that they use.
set(pc_io_libs_private)
foreach(module IN LISTS ASHLAR_IO_MODULES)
  list(APPEND pc_io_libs_private ${${module}_LDFLAGS})
endforeach()
list(JOIN pc_io_libs_private " " pc_io_libs_private)
set(pc_cuda_libs_private)
if(ASHLAR_CUDA)
  set(pc_cuda_libs_private "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lcublasLt -lpthread -ldl -lrt")
endif()
foreach(file ashlar.pc ashlar-io.pc ashlar-cuda.pc)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/${file}.in ${PROJECT_BINARY_DIR}/package/${file} @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/package/${file} DESTINATION ${pkgconfig_dir})
endforeach()
