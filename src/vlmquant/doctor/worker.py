"""One of the doctor's contenders in its own process: `python -m vlmquant.doctor.worker`; talks as `bench.worker`."""

from vlmquant.bench.worker import main
from vlmquant.doctor.contenders import CONTENDERS

if __name__ == "__main__":
    main(CONTENDERS)
