"""Runs in which nothing failed, as their programs print them: warnings, retries that worked, errors that were caught;
and single lines that name a failure which has not happened."""

HEALTHY = {
    "hugging face trainer": """
/opt/venv/lib/python3.11/site-packages/transformers/training_args.py:1545: FutureWarning: `evaluation_strategy` is deprecated and will be removed in version 4.46 of Transformers. Use `eval_strategy` instead
  warnings.warn(
Some weights of BertForSequenceClassification were not initialized from the model checkpoint at bert-base-uncased and are newly initialized: ['classifier.bias', 'classifier.weight']
You should probably TRAIN this model on a down-stream task to be able to use it for predictions and inference.
{'loss': 0.6931, 'grad_norm': 2.41, 'learning_rate': 4.9e-05, 'epoch': 0.1}
{'loss': 0.5120, 'grad_norm': 1.97, 'learning_rate': 4.1e-05, 'epoch': 0.6}
{'eval_loss': 0.4411, 'eval_accuracy': 0.81, 'eval_runtime': 3.2, 'epoch': 1.0}
{'train_runtime': 120.4, 'train_samples_per_second': 33.1, 'train_steps_per_second': 2.0, 'train_loss': 0.52, 'epoch': 1.0}
""",
    "megatron, steady": """
 [2025-03-01 10:00:01] iteration      100/  500000 | consumed samples:        25600 | elapsed time per iteration (ms): 1510.2 | learning rate: 1.500E-05 | global batch size:   256 | lm loss: 6.120981E+00 | loss scale: 1.0 | grad norm: 1.310 | number of skipped iterations:   0 | number of nan iterations:   0 |
 [2025-03-01 10:00:16] iteration      110/  500000 | consumed samples:        28160 | elapsed time per iteration (ms): 1508.8 | learning rate: 1.650E-05 | global batch size:   256 | lm loss: 6.020127E+00 | loss scale: 1.0 | grad norm: 1.221 | number of skipped iterations:   0 | number of nan iterations:   0 |
 [2025-03-01 10:00:31] iteration      120/  500000 | consumed samples:        30720 | elapsed time per iteration (ms): 1512.0 | learning rate: 1.800E-05 | global batch size:   256 | lm loss: 5.951209E+00 | loss scale: 1.0 | grad norm: 1.190 | number of skipped iterations:   0 | number of nan iterations:   0 |
""",
    "loss scale backs off": """
[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768
[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 32768, reducing to 16384
step 1 | loss: 10.91 | grad_norm: inf | scale 32768
step 2 | loss: 10.88 | grad_norm: nan | scale 16384
step 3 | loss: 10.70 | grad_norm: 4.1 | scale 16384
step 4 | loss: 10.31 | grad_norm: 3.7 | scale 16384
step 5 | loss: 10.01 | grad_norm: 3.3 | scale 16384
Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to 8192.0
step 7 | loss: 9.31 | grad_norm: 3.0 | scale 8192
""",
    "small spike that came back": """
step 1000 loss=2.41 lr=3e-4
step 1001 loss=2.38 lr=3e-4
step 1002 loss=2.44 lr=3e-4
step 1003 loss=2.40 lr=3e-4
step 1004 loss=4.90 lr=3e-4
step 1005 loss=2.95 lr=3e-4
step 1006 loss=2.43 lr=3e-4
step 1007 loss=2.39 lr=3e-4
""",
    "out of memory, survived": """
INFO trying batch size 64
WARNING torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
INFO batch size 64 does not fit, retrying with 32
INFO step 1 loss 4.21
INFO step 2 loss 4.02
INFO step 3 loss 3.88
INFO training finished
""",
    "traceback caught": """
Traceback (most recent call last):
  File "loader.py", line 31, in fetch
    return read(path)
  File "loader.py", line 12, in read
    raise OSError("disk hiccup")
OSError: [Errno 5] Input/output error: '/data/shard-17.tar'
sample skipped, continuing
epoch 1 step 100 loss 3.10 12.1 it/s
epoch 1 step 200 loss 2.90 12.0 it/s
epoch 1 step 300 loss 2.71 12.1 it/s
Training completed.
""",
    "metric without value": """
Epoch 1 train_loss: 0.61 val_loss: 0.58 val_auc: nan
Epoch 2 train_loss: 0.55 val_loss: 0.52 val_auc: nan
UndefinedMetricWarning: Only one class present in y_true. ROC AUC score is not defined in that case.
Epoch 3 train_loss: 0.49 val_loss: 0.50 val_auc: 0.71
""",
    "hub, second try": """
2025-02-01 09:00:00 WARNING '(ReadTimeoutError("HTTPSConnectionPool(host='huggingface.co', port=443): Read timed out. (read timeout=10)"), '(Request ID: 7)')' thrown while requesting HEAD https://huggingface.co/gpt2/resolve/main/config.json
2025-02-01 09:00:00 WARNING Retrying in 1s [Retry 1/5].
2025-02-01 09:00:02 INFO loaded gpt2
2025-02-01 09:00:09 INFO step 10 loss 3.2 tokens/s 12000
2025-02-01 09:00:12 INFO step 20 loss 3.1 tokens/s 12010
""",
    "lightning": """
GPU available: True (cuda), used: True
TPU available: False, using: 0 TPU cores
You are using a CUDA device ('NVIDIA A100-SXM4-40GB') that has Tensor Cores. To properly utilize them, you should set `torch.set_float32_matmul_precision('medium' | 'high')`
LOCAL_RANK: 0 - CUDA_VISIBLE_DEVICES: [0]
/opt/x/lightning/pytorch/trainer/connectors/data_connector.py:425: The 'train_dataloader' does not have many workers which may be a bottleneck. Consider increasing the value of the `num_workers` argument` to `num_workers=15` in the `DataLoader` to improve performance.
Epoch 0:  52%|█████▏    | 486/938 [00:06<00:06, 74.10it/s, v_num=3, train_loss=0.212]
Epoch 1: 100%|██████████| 938/938 [00:12<00:00, 75.10it/s, v_num=3, train_loss=0.101]
`Trainer.fit` stopped: `max_epochs=2` reached.
""",
    "vllm serves": """
INFO 05-01 10:00:00 [__init__.py:239] Automatically detected platform cuda.
WARNING 05-01 10:00:03 [config.py:781] Async output processing can not be enabled with pipeline parallel
WARNING 05-01 10:00:04 [utils.py:2283] We must use the `spawn` multiprocessing start method. Overriding VLLM_WORKER_MULTIPROC_METHOD to 'spawn'. Reason: CUDA is initialized
INFO 05-01 10:00:20 [kv_cache_utils.py:578] GPU KV cache size: 412,112 tokens
INFO 05-01 10:00:41 [gpu_model_runner.py:1436] Graph capturing finished in 21 secs, took 0.51 GiB
INFO:     Started server process [4121]
INFO:     Application startup complete.
INFO 05-01 10:01:00 [loggers.py:87] Engine 000: Avg prompt throughput: 310.2 tokens/s, Avg generation throughput: 120.0 tokens/s, Running: 8 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.9%
INFO:     127.0.0.1:50212 - "POST /v1/completions HTTP/1.1" 200 OK
INFO:     127.0.0.1:50214 - "POST /v1/completions HTTP/1.1" 400 Bad Request
""",
    "vllm, warnings only": """
WARNING 12-09 02:11:09 cuda.py:22] You are using a deprecated `pynvml` package. Please install `nvidia-ml-py` instead, and make sure to uninstall `pynvml`.
WARNING 12-09 02:11:12 config.py:1865] Casting torch.bfloat16 to torch.float16.
WARNING 12-09 02:11:15 custom_all_reduce.py:134] Custom allreduce is disabled because your platform lacks GPU P2P capability or P2P test failed. To silence this warning, specify disable_custom_all_reduce=True explicitly.
INFO 12-09 02:11:20 model_runner.py:1072] Starting to load model Qwen/Qwen2-7B-Instruct...
Loading safetensors checkpoint shards: 100% Completed | 4/4 [00:02<00:00,  1.60it/s]
INFO 12-09 02:11:31 model_runner.py:1077] Loading model weights took 14.2487 GB
""",
    "sglang serves": """
[2025-03-03 08:00:01] server_args=ServerArgs(model_path='Qwen/Qwen2.5-7B', watchdog_timeout=300, disable_cuda_graph=False, log_level_error=None)
[2025-03-03 08:00:11 TP0] Init torch distributed begin.
[W303 08:00:11.201 ProcessGroupNCCL.cpp:4561] [PG ID 0 PG GUID 0 Rank 0]  using GPU 0 to perform barrier as devices used by this process are currently unknown. This can potentially cause a hang if this rank to GPU mapping is incorrect.
[2025-03-03 08:00:33 TP0] Memory pool end. avail mem=9.31 GB
[2025-03-03 08:00:51] The server is fired up and ready to roll!
[2025-03-03 08:01:00 TP0] Decode batch. #running-req: 4, #token: 812, token usage: 0.00, gen throughput (token/s): 210.11, #queue-req: 0
""",
    "nccl speaks at length": """
node1:100:200 [0] NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal implementation
node1:100:200 [0] NCCL INFO Failed to open libibverbs.so[.1]
node1:100:200 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.4<0>
node1:100:200 [0] NCCL INFO comm 0x55d8 rank 0 nranks 2 cudaDev 0 busId 1a0 commId 0x7f - Init COMPLETE
step 10 loss 2.31 time 0.21
step 20 loss 2.20 time 0.21
""",
    "torchrun, cold start": """
[W socket.cpp:697] [c10d] The client socket has failed to connect to [node1]:29500 (errno: 111 - Connection refused).
[rank0] epoch 0 step 100 loss 1.21
[rank1] epoch 0 step 100 loss 1.22
[rank0] epoch 0 step 200 loss 1.10
[rank1] epoch 0 step 200 loss 1.09
[rank0]:[W205 11:11:11.111111111 ProcessGroupNCCL.cpp:1250] Warning: WARNING: process group has NOT been destroyed before we destruct ProcessGroupNCCL. On normal program exit, the application should call destroy_process_group
training complete
""",
    "finished, then cancelled": """
step 9990 loss 1.91
step 10000 loss 1.90
Training finished, model saved to /out/final
slurmstepd: error: *** JOB 991 ON n7 CANCELLED AT 2025-01-01T00:00:00 ***
""",
    "semaphores leaked at the end": """
Epoch 3/3 - loss: 0.2101 - accuracy: 0.9312
Saved final model to model.pt
/usr/lib/python3.10/multiprocessing/resource_tracker.py:224: UserWarning: resource_tracker: There appear to be 12 leaked semaphore objects to clean up at shutdown
  warnings.warn('resource_tracker: There appear to be %d '
""",
    "tensorflow starts": """
2024-05-05 10:10:10.123456: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered
2024-05-05 10:10:10.223456: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning: Could not find TensorRT
2024-05-05 10:10:11.223456: I tensorflow/core/platform/cpu_feature_guard.cc:182] This TensorFlow binary is optimized to use available CPU instructions in performance-critical operations.
Epoch 1/2
100/100 [==============================] - 3s 21ms/step - loss: 1.2011 - accuracy: 0.5611
""",
    "evaluation": """
Evaluating: 100%|██████████| 50/50 [00:10<00:00,  4.91it/s]
error rate: 0.081  WER: 7.9  failed: 0
Test accuracy: 0.919
""",
    "slow but working": """
step 1 loss 3.9 step_time 41.20s
step 2 loss 3.8 step_time 44.71s
step 3 loss 3.8 step_time 39.12s
""",
    "checkpoint retried": """
2025-06-06 06:06:06 ERROR saving checkpoint failed: [Errno 116] Stale file handle; retry 1 of 3
2025-06-06 06:06:16 INFO checkpoint saved after retry
2025-06-06 06:06:26 INFO step 501 loss 2.0
2025-06-06 06:06:36 INFO step 502 loss 2.0
2025-06-06 06:06:46 INFO step 503 loss 1.9
""",
}

# Settings, options with their help, counts of zero, what was done instead, what is set up for the case of a failure.
QUIET = r"""
INFO 11-02 10:00:00 config.py:22] Chunked prefill is enabled with max_num_batched_tokens=8192.
INFO 11-02 10:00:00 cuda.py:22] Using Flash Attention backend on V1 engine.
Disabled flash attention: not supported on this model, using sdpa
pip install -e . && python train.py --resume checkpoint
# to reproduce: pip install transformers==4.45 && huggingface-cli login
timeout: 600
nccl_timeout: 1800
dist_timeout_sec: 3600, watchdog_timeout: 600
sha256: 9f86d081884c7d659a2feaa0c55ad015
md5 of the archive: d41d8cd98f00b204e9800998ecf8427e
checkpoint: /data/ckpt/step_1000
hf_token: ***
  --timeout TIMEOUT     seconds until a request is cancelled (default: 600)
  --ignore-errors       skip samples that cannot be decoded
usage: train.py [-h] [--lr LR] [--resume PATH]
  --nan-policy {raise,skip}  what to do when the loss is nan
optional arguments:
Loading extension module fused_adam...
Building extension module fused_adam...
ninja: no work to do.
Time to load fused_adam op: 0.07 seconds
Using /root/.cache/torch_extensions/py311_cu124 as PyTorch extensions root...
Detected CUDA files, patching ldflags
[INFO] [real_accelerator.py:222:get_accelerator] Setting ds_accelerator to cuda (auto detect)
 [WARNING]  async_io requires the dev libaio .so object and headers but these were not found.
 [WARNING]  async_io: please install the libaio-dev package with apt
 [WARNING]  If libaio is already installed (perhaps from source), try setting the CFLAGS and LDFLAGS environment variables to where it can be found.
 [WARNING]  sparse_attn requires a torch version >= 1.5 and < 2.0 but detected 2.4
No ROCm runtime is found, using ROCM_HOME='/opt/rocm'
Xid: 0 events since boot
GPU 0: ECC errors: 0 volatile, 0 aggregate
temperature 64 C, throttle reasons: none
slurm_job_id 123, preemption: requeue
--requeue is set; --signal=USR1@300
job time limit: 24:00:00
memory limit: 512G, oom_kill 0
memory.events: low 0 high 0 max 0 oom 0 oom_kill 0
loss_scale: dynamic, min_loss_scale: 1, hysteresis: 2
trust_remote_code: True
rope_scaling: None
max_model_len: 32768
chat_template: null
max_position_embeddings: 131072
gradient_checkpointing: true
num_workers: 8, pin_memory: true, persistent_workers: true
drop_last: True
no samples dropped
0 samples filtered out of 10000
found 0 duplicates
skipping checkpoint: no previous checkpoint
No checkpoint found, training from scratch
Could not find checkpoint latest; starting from scratch
Downloading shards: 100%
Some weights of the model were not used
quantization: None, kv_cache_dtype: auto
spike_detection: enabled, threshold 3.0
preempted requests: 0, swapped: 0
Avg prompt throughput: 0.0 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.0%
error rate 0.02, wer 0.12, cer 0.04
validation error: 0.123
test error 3.4%
mean absolute error: 0.5
Dropout(p=0.1, inplace=True)
CrossEntropyLoss(ignore_index=-100)
KeyboardInterrupt is handled by saving a checkpoint
checkpoint every 600 s, also on SIGTERM
registered handler for SIGTERM and SIGUSR1
install_signal_handlers: true
fault_tolerance: {max_restarts: 3, hang_detection: true}
--deadlock-timeout 300
[rank0]: using device cuda:0, world_size 8, MASTER_ADDR=node-0 MASTER_PORT=29500
NCCL_ASYNC_ERROR_HANDLING=1 NCCL_IB_DISABLE=0 TORCH_NCCL_BLOCKING_WAIT=0
NCCL_TIMEOUT=1800 NCCL_DEBUG=WARN
RANK=0 WORLD_SIZE=8 LOCAL_RANK=0
/dev/shm size: 64G
ulimit -l unlimited
ulimit -n 1048576
export LD_LIBRARY_PATH=/usr/local/cuda/lib64
export CUDA_HOME=/usr/local/cuda
export TORCH_CUDA_ARCH_LIST=9.0
torch.compile: enabled, backend inductor, dynamic False
torch.export not used
fused kernels: libdevice found
Using @triton kernels for rmsnorm
JITFunction cache: 24 entries
Stopping at step 1000 as max_steps reached
dataset collapsed to 4 domains
gradient clipping at 1.0
learning rate too high is guarded by warmup
lower the learning rate by 10 at step 3000
diverged: False
unused parameters: 0
missing keys: []
unexpected keys: []
<All keys matched successfully>
missing_keys=[], unexpected_keys=[]
deprecated: use --foo instead
restart policy: Never
node selector: gpu=h100, maintenance window: Sunday
spot: false, on-demand: true
eviction policy: lru
restricted to 4 workers
legacy format: false
private repo: false
delimiter: ','
skip malformed rows: true
decord version 0.6.0
using torchcodec for video
AVAILABLE BACKENDS: gloo nccl
singular values: 12.0 8.0 1.2
")+3; b=src.index("
"""
