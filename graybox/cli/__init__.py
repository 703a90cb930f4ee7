"""The command line: `graybox demo`, `graybox backend`, `graybox dashboard`."""
