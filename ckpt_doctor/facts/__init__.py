"""What runtimes do, as data: the methods of PEFT and the servers, each in a file of its own."""
