"""When tasks are to be sent by themselves: the timing, the slots that are due, and what a schedule sends.  Pure."""
