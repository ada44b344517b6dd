"""`python -m ringfence`: the command line, where the script `ringfence` is not in PATH."""

from ringfence.cli import main

if __name__ == "__main__":
    main()
