"""llama.cpp's own HTTP server with one model, on a socket; ends with its standard input.

usage: llama_server.py MODEL SOCKET KEY chat|embedding
"""

import sys

import xllamacpp

model, socket, key, kind = sys.argv[1:]
parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.n_ctx = 512
parameters.n_parallel = 4
parameters.n_gpu_layers = 0
parameters.cpuparams.n_threads = 1
parameters.cpuparams_batch.n_threads = 1
parameters.fit_params = False
parameters.cache_ram_mib = 0
parameters.verbosity = 1
parameters.hostnames = [socket]
parameters.api_keys = [key]
if kind == "embedding":
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(parameters)
print("ready", flush=True)
sys.stdin.read()
