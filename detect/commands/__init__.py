"""The command line: a function a command. Nothing imports from here but `detect.__main__`."""
