"""What an encoder is made of: attention that shows what is inside it, pooling, dropout, and what a pass costs.

It must not know teachers, students or model folders."""
