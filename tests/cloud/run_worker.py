"""A worker process with the small stages: ``python run_worker.py decompress|recon``; all else is real."""

import sys

import small_stages

if __name__ == "__main__":
    if sys.argv[1] == "decompress":
        from mrirecon.cloud.stages.decompress_worker import main

        sys.exit(main(small_stages.decompress))
    from mrirecon.cloud.stages.recon_worker import main

    sys.exit(main(small_stages.reconstruct))
