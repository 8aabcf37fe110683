"""The face: the command line, the runner for one machine, the demo, the doctor."""
