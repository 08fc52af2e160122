"""Apache Kafka as a sink: Produce requests of our own over aiokafka's connections."""

from streams.packages import in_parts

in_parts("aiokafka")  # all of it has consumers and producers
