"""A worker with the small stages, all else real: ``python -m tests.support.run_worker decompress|recon``."""

import sys

from tests.support import small_stages

if __name__ == "__main__":
    if sys.argv[1] == "decompress":
        from mrirecon.cloud.stages.decompress_worker import main

        sys.exit(main(small_stages.decompress))
    from mrirecon.cloud.stages.recon_worker import main

    sys.exit(main(small_stages.reconstruct))
