"""The C of machrv/native/linux under everything that looks for mistakes in C: see `python -m tests.sanitize --help`.

`static`: compilers and analyzers. `programs`: C programs that call it, with failures and threads. `suite`: the Python tests,
with the compiled module under a sanitizer.
"""
