"""ClickHouse's HTTP interface in front of the genuine engine (chdb) in this process."""
