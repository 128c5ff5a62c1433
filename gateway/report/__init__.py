"""Messages about messages: failure reports, delay reports and receipts. They are ordinary messages, written here and
accepted in the transaction that settles what they are about. A report never causes a report.
"""
