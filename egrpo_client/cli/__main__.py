"""`python -m egrpo_client.cli`: the command line where no `egrpo` script is installed."""

from egrpo_client.cli import main

if __name__ == "__main__":
    main()
