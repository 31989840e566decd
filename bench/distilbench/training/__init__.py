"""The training of one student: the loop, the teacher's signals, checkpoints, and dev scores on the way.

It must not know studies of several runs, nor the tasks that students are scored on."""
