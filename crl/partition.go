package crl

import "github.com/deviceca/deviceca/ca"

// DefaultPartition is how many consecutive issuance indexes share a partition.
//
// With 65,536 a partition's complete list takes 32 kB when 1 % are revoked and
// 3.2 MB when all are, and ten million certificates make 153 of them, each
// signed once an interval. Consecutive ranges age out together: a fleet of a million
// devices that renews daily fills 16 partitions a day, and those of the day
// before yesterday hold nothing that is still valid and are no longer
// published; had indexes been spread by a modulus, each list would carry a
// share of every day for ever.
const DefaultPartition = ca.PartitionSize

// Partition is the partition that a certificate belongs to for good: it is fixed
// at issuance and named in its CRL distribution points; with DefaultPartition
// that is ca.Partition. The size must never change for a CA generation.
func Partition(index uint64, size int) int { return int(index / uint64(size)) }
