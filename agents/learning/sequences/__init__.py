"""The sequence model: in what order and at what pace the clients of this network ask, learnt in live cycles or from the
store. It adds listed incidents and pages nobody."""
