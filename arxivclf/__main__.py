"""`python -m arxivclf`: the command line, as torchrun starts it."""

from arxivclf.cli import main

if __name__ == "__main__":
    main()
