"""The only package that touches BPF: libbpf through ctypes, layouts from the object's BTF, pins, cgroups."""
