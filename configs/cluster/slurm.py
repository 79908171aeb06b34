"""A Dask cluster of SLURM jobs for ``landcover predict --dask``; needs ``pip install dask-jobqueue``.

Run it on a login node and leave it running::

    python configs/cluster/slurm.py

It prints the scheduler's address. In another terminal, on the same node::

    landcover predict -m model.safetensors --scenes scenes.txt -o /shared/maps --dask tcp://HOST:PORT

Model, scenes and maps lie on a file system that all nodes see.
"""

# ruff: noqa: INP001
import threading

from dask_jobqueue import SLURMCluster

cluster = SLURMCluster(
    queue="compute",  # the partition: yours
    account="myproject",  # yours
    cores=1,  # blocks a worker does at once: one, the network uses the CPUs of the job by itself
    processes=1,
    memory="4GB",  # map.memory (1.5 GB by default) and a block's result, with room to spare
    job_cpu=4,
    walltime="04:00:00",
    worker_extra_args=["--lifetime", "3h45m", "--lifetime-stagger", "10m"],  # leave before SLURM ends the job
    job_script_prologue=["export OMP_NUM_THREADS=4 MKL_NUM_THREADS=4 OMP_WAIT_POLICY=PASSIVE"],
)
cluster.adapt(minimum=2, maximum=64)  # jobs come and go with the work
print(cluster.scheduler_address, flush=True)  # noqa: T201 - for the command
threading.Event().wait()
