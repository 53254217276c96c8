"""`python -m bench.models`: run the vision models in three ways, with the same weights.

(a) the original's way, see `bench/models/original.py`: each script makes a pass over all images and opens their files
    again, with one matcher call per crop and one captioner call per image; one process with all cores.
(b) ours: `VisionPipeline` on micro-batches, while threads decode the next one, as in the runner; writes a line of JSON
    for each image. On a CPU, one process with one thread per core, as workers are started there; on a GPU one process.
(c) the bare forward passes of the same models, see `bench/models/bare.py`, in as many processes as (b). If models run
    on a GPU and OCR on the CPU, the slower of the two is the bound for every pipeline.

Prints images/s of each, b/a, b/c, and the utilisation of the GPU; for several `--rounds` medians, minima and maxima,
since the speed of a shared machine changes. By default with the demo's weights on the bundled shard. With
`--architectures paper` it uses the full-size models of the `paper` profile with random weights, on images enlarged to
LARGE pixels, and extrapolates to the data sets of the paper:

    python -m bench.models --architectures paper --device cuda --images 128 --original-images 8
"""

from __future__ import annotations

from bench.models.comparison import main

if __name__ == "__main__":
    main()
