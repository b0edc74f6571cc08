"""`python -m zerohop`: the same as the `zerohop` command."""

from zerohop.cli.main import main

if __name__ == "__main__":
    main()
