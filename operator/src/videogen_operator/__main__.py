"""`python -m videogen_operator`."""

from videogen_operator.main import main

if __name__ == "__main__":
    main()
