"""Single messages as their programs print them, by category: from the sources and documentation named beside each group.

They test signatures, one line at a time; the reading of whole logs is tested elsewhere.
"""

MESSAGES = {
    # NVIDIA Xid catalogue, NVML, nvidia-smi(1), DCGM
    "gpu_hardware": """
NVRM: Xid (PCI:0000:3b:00): 48, pid='<unknown>', name=<unknown>, An uncorrectable double bit error (DBE) has been detected on GPU
NVRM: Xid (PCI:0000:18:00): 94, pid=2345, name=python, Contained: SM (0x1). RST: No, D-RST: No
NVRM: Xid (PCI:0000:9a:00): 95, pid=1, Uncontained: FBHUB. RST: Yes
NVRM: Xid (PCI:0000:4b:00): 74, pid=9871, NVLink: fatal error detected on link 6(0x10000, 0x0, 0x0, 0x0, 0x0)
NVRM: Xid (PCI:0000:db:00): 119, pid=3221, name=python, Timeout after 6s of waiting for RPC response from GPU1 GSP!
NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen off the bus.
NVRM: Xid (PCI:0000:07:00): 62, pid=1120, 2027a4b2 00007f10 00000000
RuntimeError: CUDA error: uncorrectable ECC error encountered
RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution
Unable to determine the device handle for GPU 0000:41:00.0: Unknown Error
Unable to determine the device handle for GPU0000:86:00.0: GPU is lost.  Reboot the system to recover this GPU
pynvml.NVMLError_GpuIsLost: GPU is lost
NVRM: GPU 0000:0f:00.0: RmInitAdapter failed! (0x62:0xffff:2351)
        HW Thermal Slowdown                   : Active
GPU 3: clocks throttled, temperature 92 C above the slowdown threshold
nvidia-nvswitch0: SXid (PCI:0000:c4:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error
mce: [Hardware Error]: Machine check events logged
        HW Power Brake Slowdown           : Active
NVRM: Xid (PCI:0000:65:00): 54, Auxiliary power is not connected to the GPU board
pcieport 0000:40:01.1: AER: Uncorrected (Fatal) error received: 0000:41:00.0
RuntimeError: CUDA error: unknown error
silent data corruption suspected: replica checksums differ across ranks at step 1200
""",
    # NCCL net_ib.cc and socket.cc, huggingface_hub, urllib3, pip, wandb
    "network": """
node12:2211:2380 [3] transport/net_ib.cc:1295 NCCL WARN NET/IB : Got completion from peer 10.1.4.7<41337> with status=12 opcode=0 len=0 vendor err 129 (Recv)
gpu-07:331:900 [1] misc/ibvwrap.cc:262 NCCL WARN Call to ibv_modify_qp failed with error Connection timed out errno 110
worker3:100:212 [0] transport/net_ib.cc:94 NCCL WARN NET/IB : mlx5_2:1 Got async event : port error
mlx5_core 0000:5e:00.0 ens3f0: Link down
bond0: (slave ens1f1): link status definitely down, disabling slave
node3:52:52 [0] bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found
node5:91:133 [2] misc/socket.cc:484 NCCL WARN socketStartConnect: Connect to 172.17.0.1<52335> failed : Software caused connection abort
RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:799] connect [127.0.1.1]:4352: No route to host
node2:8:8 [0] NCCL WARN NET/OFI Unable to find a protocol that worked. Failing initialization
OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't find it in the cached files
huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the files on the Hub and we cannot find the appropriate snapshot folder
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /api/models/gpt2
requests.exceptions.ReadTimeout: (ReadTimeoutError("HTTPSConnectionPool(host='huggingface.co', port=443): Read timed out. (read timeout=10)"), '(Request ID: 1)')
urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>
huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/datasets/c4
requests.exceptions.HTTPError: 504 Server Error: Gateway Time-out for url: https://huggingface.co/api/models
ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate (_ssl.c:997)
pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Read timed out.
ERROR: Could not fetch URL https://pypi.org/simple/torch/: connection error
requests.exceptions.ChunkedEncodingError: ('Connection broken: IncompleteRead(1024 bytes read, 4096 more expected)', IncompleteRead(1024 bytes read, 4096 more expected))
OSError: Consistency check failed: file should be of size 4976698672 but has size 1283457 (model-00001-of-00004.safetensors).
wandb.errors.CommError: Run initialization has timed out after 90.0 sec while uploading
fatal: early EOF; fetch-pack: unexpected disconnect while reading sideband packet
rail 4: all_reduce busbw degraded to 11 GB/s, slow link between node-4 and node-9
""",
    # errno(3), torch shared memory and DataLoader, ext4, nfs(5)
    "storage_io": """
OSError: [Errno 28] No space left on device: '/scratch/run/checkpoint-1200'
RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 4194368 vs 4194256
RuntimeError: PytorchStreamWriter failed writing file data/183: file write failed
OSError: [Errno 122] Disk quota exceeded
RuntimeError: unable to write to file </torch_1234_5678_0>: No space left on device (28)
RuntimeError: DataLoader worker (pid 4521) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory. Please try to raise your shared memory limit.
node1:12:12 [0] misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-Kx2a to 33030532 bytes, error: No space left on device
ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).
RuntimeError: received 0 items of ancdata
OSError: [Errno 24] Too many open files: '/data/shard-0012.tar'
RuntimeError: DataLoader worker (pid(s) 9123, 9124) exited unexpectedly
OSError: [Errno 116] Stale file handle
OSError: [Errno 5] Input/output error: '/mnt/nfs/data.bin'
nvme nvme0: I/O 117 QID 4 timeout, aborting
EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm python: reading directory lblock 0
sqlite3.OperationalError: database is locked
FileExistsError: [Errno 17] File exists: '/root/.cache/huggingface/hub/models--gpt2/blobs/ab.lock'
filelock._error.Timeout: The file lock '/home/u/.cache/x.lock' could not be acquired.
OSError: [Errno 107] Transport endpoint is not connected: '/mnt/s3/data'
Bus error (core dumped)
""",
    # mm/oom_kill.c, slurmstepd, Kubernetes, Ray, mlock(2)
    "host_oom": """
Out of memory: Killed process 21044 (python) total-vm:98213412kB, anon-rss:61442340kB, file-rss:0kB, shmem-rss:112kB
Memory cgroup out of memory: Killed process 3012 (pt_main_thread) total-vm:51298128kB
slurmstepd: error: Detected 1 oom_kill event in StepId=81723.0. Some of the step tasks have been OOM Killed.
slurmstepd: error: Job 41183 exceeded memory limit (68201472 > 67108864), being killed
    Reason:       OOMKilled
ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.
numpy._core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array with shape (100000, 1000000) and data type float64
MemoryError
RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 274877906944 bytes. Error code 12 (Cannot allocate memory)
OSError: [Errno 12] Cannot allocate memory
RuntimeError: can't start new thread
ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: -9) local_rank: 2 (pid: 812) of binary: /usr/bin/python3
/var/spool/slurmd/job1/slurm_script: line 14: 30112 Killed                  python train.py
node9:1:1 [0] misc/ibvwrap.cc:184 NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory; check ulimit -l (max locked memory)
RuntimeError: CUDA error: cudaHostAlloc failed: pinned memory limit reached
""",
    # CUDACachingAllocator.cpp, vLLM, SGLang, XLA
    "gpu_oom": """
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.12 GiB is free.
RuntimeError: CUDA error: out of memory
RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.76 GiB total capacity; 9.49 GiB already allocated; 17.44 MiB free; 9.72 GiB reserved in total by PyTorch)
torch.OutOfMemoryError: HIP out of memory. Tried to allocate 512.00 MiB.
jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.
tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[64,512,512,64] on /GPU:0
RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`
RuntimeError: MPS backend out of memory (MPS allocated: 17.10 GB, other allocations: 1.02 GB, max allowed: 18.13 GB).
ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.
ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache (51200).
ValueError: To serve at least one request with the models's max seq len (32768), (4.00 GiB KV cache is needed, which is larger than the available KV cache memory (2.10 GiB).
RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.
ValueError: Free memory on device (3.2/79.15 GiB) on startup is less than desired GPU memory utilization (0.9, 71.24 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.
ValueError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes.
node1:7:7 [0] include/alloc.h:59 NCCL WARN Cuda failure 'out of memory'
RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.
""",
    # c10d socket.cpp, TCPStore.cpp, elastic, NCCL init.cc
    "dist_init": """
[E socket.cpp:957] [c10d] The client socket has timed out after 60s while trying to connect to (10.0.0.1, 29500).
torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 3/4 clients joined.
torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError
torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the C10d store has failed. See inner exception for details.
torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).
RuntimeError: Address already in use
OSError: [Errno 98] Address already in use
torch.distributed.DistBackendError: [3] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got error: wait timeout after 600000ms
RuntimeError: CUDA error: invalid device ordinal
ncclInvalidUsage: This usually reflects invalid usage of NCCL library. Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000
RuntimeError: Distributed package doesn't have NCCL built in
torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1970, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5
ValueError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!
ValueError: The number of required GPUs exceeds the total number of available GPUs in the placement group.
RuntimeError: No backend type associated with device type cpu
lightning.fabric.utilities.exceptions.MisconfigurationException: You requested gpu: [0, 1, 2, 3] But your machine only has: [0, 1]
""",
    # ProcessGroupNCCL.cpp, ProcessGroupWrapper.cpp, gloo, SGLang, vLLM
    "collective_hang": """
[rank2]:[E1121 10:12:13.123456789 ProcessGroupNCCL.cpp:632] [Rank 2] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600031 milliseconds before timing out.
RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running collective: CollectiveFingerPrint(SequenceNumber=4, OpType=ALLREDUCE), but Rank 1 is running collective: CollectiveFingerPrint(SequenceNumber=4, OpType=BROADCAST).
RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms for recv operation to complete
RuntimeError: Rank 1 failed to pass monitoredBarrier in 30000 ms
gloo::EnforceNotMet: [enforce fail at ../third_party/gloo/gloo/transport/tcp/pair.cc:446] op.preamble.length <= op.nbytes. 8192 vs 4096
RuntimeError: DDP expects same model across all ranks, but Rank 0 has 14 params, while rank 1 has inconsistent 16 params.
Watchdog timeout (self.watchdog_timeout=300)
TimeoutError: RPC call to execute_model timed out.
RuntimeError: Detected at least one rank that exhausted inputs. Throwing across all ranks.
terminate called after throwing an instance of 'c10::DistBackendError' what(): [PG 0 Rank 3] NCCL watchdog thread terminated with exception: [Rank 3] Watchdog caught collective operation timeout
INFO: task python:4120 blocked for more than 120 seconds.
""",
    # Python, ld.so(8), transformers, Triton
    "missing_dependency": """
ModuleNotFoundError: No module named 'einops'
ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the following error: the package flash_attn seems to be not installed.
ImportError: Using `low_cpu_mem_usage=True` or a `device_map` requires Accelerate: `pip install 'accelerate>=0.26.0'`
ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory
python: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: No such file or directory
RuntimeError: Failed to find C compiler. Please specify via CC environment variable.
OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.
bash: nvcc: command not found
RuntimeError: Ninja is required to load C++ extensions
ImportError: This modeling file requires the following packages that were not found in your environment: flash_attn. Run `pip install flash_attn`
importlib.metadata.PackageNotFoundError: No package metadata was found for bitsandbytes
ImportError: libGL.so.1: cannot open shared object file: No such file or directory
torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx
""",
    # torch, NVIDIA driver, numpy, pip
    "version_mismatch": """
ImportError: /usr/lib/python3/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDeviceEi
ImportError: cannot import name 'AutoModelForVision2Seq' from 'transformers' (/opt/venv/lib/python3.11/site-packages/transformers/__init__.py)
AttributeError: module 'numpy' has no attribute 'bool'. `np.bool` was a deprecated alias for the builtin `bool`.
ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject
RuntimeError: CUDA error: no kernel image is available for execution on the device
RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver
RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.
Failed to initialize NVML: Driver/library version mismatch
RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted on non supported HW
RuntimeError: The detected CUDA version (11.8) mismatches the version that was used to compile PyTorch (12.4). Please make sure to use the same CUDA versions.
ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by /opt/x.so)
ImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.29' not found
ValueError: The checkpoint you are trying to load has model type `qwen3_moe` but Transformers does not recognize this architecture.
TypeError: Descriptors cannot be created directly. If this call came from a _pb2.py file, your generated code is out of date and must be regenerated with protoc >= 3.19.0.
AttributeError: '_OpNamespace' '_C' object has no attribute 'rms_norm'
ModuleNotFoundError: No module named 'vllm._C'
RuntimeError: operator torchvision::nms does not exist
ERROR: Could not find a version that satisfies the requirement torch==2.0.1 (from versions: 2.2.0, 2.3.0)
NVIDIA B200 with CUDA capability sm_100 is not compatible with the current PyTorch installation.
RuntimeError: FlashAttention only supports Ampere GPUs or newer.
ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute capability 7.5.
OSError: /lib/libfoo.so: invalid ELF header
RuntimeError: cuDNN version incompatibility: PyTorch was compiled against (9, 1, 0) but found runtime version (8, 9, 2).
ImportError: /usr/lib/libgomp.so.1: cannot allocate memory in static TLS block
A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.0 as it may crash.
""",
    # torch shape, device and dtype checks; Python
    "code_error": """
RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x512 and 768x1000)
RuntimeError: The size of tensor a (77) must match the size of tensor b (81) at non-singleton dimension 1
RuntimeError: shape '[8, 12, 64]' is invalid for input of size 8192
RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!
RuntimeError: expected scalar type Float but found Half
RuntimeError: "addmm_impl_cpu_" not implemented for 'Half'
RuntimeError: Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same
RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn
RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed).
RuntimeError: one of the variables needed for gradient computation has been modified by an inplace operation: [torch.FloatTensor [3, 3]], which is output 0 of ReluBackward0, is at version 1; expected version 0 instead.
RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one. This error indicates that your module has parameters that were not used in producing loss.
RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use the 'spawn' start method
NameError: name 'model' is not defined
SyntaxError: invalid syntax
AttributeError: 'NoneType' object has no attribute 'shape'
TypeError: forward() missing 1 required positional argument: 'mask'
TypeError: forward() takes 2 positional arguments but 3 were given
ValueError: optimizer got an empty parameter list
RuntimeError: Given groups=1, weight of size [64, 3, 7, 7], expected input[8, 1, 224, 224] to have 3 channels, but got 1 channels instead
IndexError: Dimension out of range (expected to be in range of [-2, 1], but got 2)
NotImplementedError: Cannot copy out of meta tensor; no data!
RuntimeError: grad can be implicitly created only for scalar outputs
ValueError: Expected input batch_size (32) to match target batch_size (16).
AttributeError: 'Net' object has no attribute 'fc3'
TypeError: cannot pickle '_io.TextIOWrapper' object
ValueError: too many values to unpack (expected 2)
""",
    # torch assertions, collate, json, Pillow, transformers
    "data_format": """
../aten/src/ATen/native/cuda/Loss.cu:250: nll_loss_forward_reduce_cuda_kernel_2d: block: [0,0,0], thread: [3,0,0] Assertion `t >= 0 && t < n_classes` failed.
IndexError: Target 10 is out of bounds.
../aten/src/ATen/native/cuda/Indexing.cu:1289: indexSelectLargeIndex: block: [12,0,0], thread: [0,0,0] Assertion `srcIndex < srcSelectDimSize` failed.
IndexError: index out of range in self
RuntimeError: stack expects each tensor to be equal size, but got [3, 224, 224] at entry 0 and [3, 256, 224] at entry 3
json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
pyarrow.lib.ArrowInvalid: JSON parse error: Missing a closing quotation mark in string. in row 12
pandas.errors.ParserError: Error tokenizing data. C error: Expected 5 fields in line 12, saw 6
PIL.UnidentifiedImageError: cannot identify image file 'a.jpg'
OSError: image file is truncated (12 bytes not processed)
UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte
ValueError: num_samples should be a positive integer value, but got num_samples=0
KeyError: 'input_ids'
ValueError: Column to remove ['text'] not in the dataset. Current columns in the dataset: ['content']
ValueError: Attempted to assign 1792 multimodal tokens to 506 placeholders
ValueError: Image features and image tokens do not match: tokens: 0, features 2304
ValueError: Unable to create tensor, you should probably activate truncation and/or padding with 'padding=True' 'truncation=True'
ValueError: The model did not return a loss from the inputs, only the following keys: logits. For reference, the inputs it received are input_ids,attention_mask.
datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset
[mov,mp4,m4a,3gp,3g2,mj2 @ 0x55d] moov atom not found
ValueError: could not convert string to float: 'abc'
ValueError: Expected more than 1 value per channel when training, got input size torch.Size([1, 256])
soundfile.LibsndfileError: Error opening 'x.flac': Format not recognised.
""",
    # torch, DeepSpeed, Lightning, fairseq
    "numerical": """
RuntimeError: probability tensor contains either `inf`, `nan` or element < 0
Loss is nan, stopping training
{'loss': nan, 'grad_norm': nan, 'learning_rate': 2e-05, 'epoch': 0.4}
{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 5e-06, 'epoch': 1.2}
RuntimeError: Function 'PowBackward0' returned nan values in its 0th output.
Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.
FloatingPointError: Minimum loss scale reached (0.0001). Your loss is probably exploding. Try lowering the learning rate, using gradient clipping or increasing the batch size.
ValueError: Expected parameter logits (Tensor of shape (4, 6)) of distribution Categorical(logits: torch.Size([4, 6])) to satisfy the constraint IndependentConstraint(Real(), 1), but found invalid values:
RuntimeError: The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped.
Monitored metric train_loss = nan is not finite. Previous best value was 2.310. Signaling Trainer to stop.
ValueError: Input contains NaN, infinity or a value too large for dtype('float32').
step 100 | loss: nan | grad norm: nan | lr: 3.0e-4
""",
    # torch serialization, safetensors, transformers
    "checkpoint_artifact": """
RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory
safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer
_pickle.UnpicklingError: invalid load key, 'v'.
EOFError: Ran out of input
RuntimeError: Error(s) in loading state_dict for Net: Missing key(s) in state_dict: "fc.weight", "fc.bias".
RuntimeError: Error(s) in loading state_dict for ResNet: size mismatch for fc.weight: copying a param with shape torch.Size([1000, 2048]) from checkpoint, the shape in current model is torch.Size([10, 2048]).
KeyError: 'model.layers.0.mlp.gate_up_proj.weight'
_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to do so you have two options
AttributeError: Can't get attribute 'Config' on <module '__main__' from 'train.py'>
OSError: my-model does not appear to have a file named config.json. Checkout 'https://huggingface.co/my-model/tree/main' for available files.
OSError: Error no file named pytorch_model.bin, model.safetensors found in directory ./out
FileNotFoundError: [Errno 2] No such file or directory: 'runs/checkpoint-500/pytorch_model.bin'
ValueError: Unrecognized model in ./ckpt. Should have a `model_type` key in its config.json
RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.
zipfile.BadZipFile: File is not a zip file
ValueError: loaded state dict contains a parameter group that doesn't match the size of optimizer's group
OSError: Can't load tokenizer for 'my-model'. If you were trying to load it from the Hub, make sure you don't have a local directory with the same name.
RuntimeError: Cannot find any model weights with `./weights`
""",
    # argparse, huggingface_hub, Megatron, boto3
    "config_permission": """
train.py: error: unrecognized arguments: --learning_rate_ 0.1
train.py: error: argument --dtype: invalid choice: 'bf61' (choose from 'bf16', 'fp16')
ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).
AssertionError: Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu * gradient_acc_step * world_size 16 != 2 * 1 * 4
PermissionError: [Errno 13] Permission denied: '/data/out'
OSError: [Errno 30] Read-only file system: '/workspace/out'
ValueError: Error initializing torch.distributed using env:// rendezvous: environment variable RANK expected, but not set
huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url https://huggingface.co/meta-llama/x
huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for url
botocore.exceptions.NoCredentialsError: Unable to locate credentials
FileNotFoundError: [Errno 2] No such file or directory: '/data/train'
huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name'
ValueError: Model architectures ['FooForCausalLM'] are not supported for now.
AssertionError: Torch not compiled with CUDA enabled
RuntimeError: No CUDA GPUs are available
RuntimeError: Found no NVIDIA driver on your system.
RuntimeError: Failed to infer device type
docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].
ValueError: User-specified max_model_len (131072) is greater than the derived max_model_len (max_position_embeddings=32768.0)
AssertionError: hidden_size value from checkpoint (4096) is not equal to the input argument value (5120).
omegaconf.errors.ConfigAttributeError: Key 'lrr' is not in struct
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.
ValueError: Loading my/repo requires you to execute the configuration file in that repo on your local machine. Set the option `trust_remote_code=True`
wandb.errors.UsageError: api_key not configured (no-tty). call wandb.login(key=[your_api_key])
""",
    # CUDA runtime, Triton, inductor, cuBLAS, ninja, faulthandler
    "gpu_kernel_compile": """
RuntimeError: CUDA error: an illegal memory access was encountered
torch.AcceleratorError: CUDA error: an illegal memory access was encountered
RuntimeError: CUDA error: misaligned address
RuntimeError: CUDA error: unspecified launch failure
RuntimeError: CUDA error: device-side assert triggered
NVRM: Xid (PCI:0000:65:00): 31, pid=3312, name=python, Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2a_00000000.
NVRM: Xid (PCI:0000:65:00): 13, pid=911, Graphics SM Warp Exception on (GPC 1, TPC 0, SM 0): Out Of Range Address
triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 135168, Hardware limit: 101376. Reducing block sizes or `num_stages` may help.
triton.compiler.errors.CompilationError: at 12:8: NameError("foo is not defined")
RuntimeError: PassManager::run failed
LLVM ERROR: Cannot select: intrinsic %llvm.nvvm.shfl.sync.bfly.i32
torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:
torch._dynamo.exc.Unsupported: call_function BuiltinVariable(print)
torch._dynamo.exc.InternalTorchDynamoError: 'NoneType' object has no attribute 'is_tracing'
RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`
RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED
RuntimeError: Unable to find a valid cuDNN algorithm to run convolution
RuntimeError: Error building extension 'fused_adam'
ninja: build stopped: subcommand failed.
ERROR: Failed building wheel for flash-attn
nvcc fatal   : Unknown option '--threads'
Segmentation fault (core dumped)
Fatal Python error: Segmentation fault
RuntimeError: CUDA error: operation not permitted when stream is capturing
!!!!!!! Segfault encountered !!!!!!!
RuntimeError: Triton Error [CUDA]: invalid argument
Memory access fault by GPU node-2 (Agent handle: 0x5581) on address 0x7f0000000000. Reason: Unknown.
""",
    # slurmstepd, Kubernetes, spot notices
    "job_scheduler": """
slurmstepd: error: *** JOB 12345 ON node01 CANCELLED AT 2025-01-02T03:04:05 DUE TO TIME LIMIT ***
slurmstepd: error: *** STEP 12345.0 ON node01 CANCELLED AT 2025-01-02T03:04:05 DUE TO PREEMPTION ***
slurmstepd: error: *** JOB 12345 ON node02 CANCELLED AT 2025-01-02T03:04:05 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***
srun: error: Node failure on gpu-17
Spot instance interruption notice received: instance will be terminated in two minutes
slurmstepd: error: *** JOB 777 ON n3 CANCELLED AT 2025-05-05T11:11:11 ***
TERM_RUNLIMIT: job killed after reaching LSF run time limit.
Pod was active on the node longer than the specified deadline: DeadlineExceeded
The node was low on priority: pod preempted by higher-priority pod
""",
}
