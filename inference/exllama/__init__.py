"""ExLlamaV2 and ExLlamaV3 on a CUDA machine: one adapter, and a thin back end for each.

`engine` is what others open; `reading` turns ids into answers; `owner` is the thread that alone touches the
generator; `v2` and `v3` are the only modules that know the libraries, and are imported once a model is loaded.
"""
