"""`python -m bench.models`: the vision models three ways, with one set of weights, in one run.

(a) the original's way, see `bench/original.py`: a pass over all images for each script, files opened again, one matcher
    call a crop, one image's crops a captioner call; one process with all cores, as its scripts are run.
(b) ours: `VisionPipeline` on micro-batches, the next one decoded in threads, as the runner does it; a line of JSON for
    each image after its micro-batch. On a CPU a process of one thread for each core, as workers are started there; on a
    GPU one process.
(c) the bare forward passes of the same models, see `bench/bare.py`, in as many processes as (b). Where models run on a
    GPU and OCR on the CPU, the slower of the two is what no pipeline can beat.

Images/s of each, b/a, b/c, and the share of the time that the GPU is busy; of several `--rounds` the medians, with the
least and the most, for a shared machine's speed changes from minute to minute. By default the demo's weights on the
bundled shard. `--architectures paper` takes the full-size models of the `paper` profile with random weights, on images
enlarged to LARGE pixels, and says what the rate comes to for the data sets of the paper:

    python -m bench.models --architectures paper --device cuda --images 128 --original-images 8
"""

from __future__ import annotations

from bench.models.comparison import main

if __name__ == "__main__":
    main()
