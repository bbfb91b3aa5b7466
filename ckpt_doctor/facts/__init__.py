"""What runtimes do, as data: the methods of PEFT, each in a file of its own."""
