"""Messages about messages: failure and delay reports. They are ordinary messages, written here and accepted like
any other in the transaction that settles what they are about. A report never causes a report."""
