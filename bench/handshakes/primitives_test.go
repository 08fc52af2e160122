// What `logbench primitives` measures with Go, whose standard library the figures of 2022 come near.
package primitives

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"testing"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func curve(b *testing.B, name string, curve ecdh.Curve) {
	own, other := must(curve.GenerateKey(rand.Reader)), must(curve.GenerateKey(rand.Reader)).PublicKey()
	b.Run(name+"/keygen", func(b *testing.B) {
		for b.Loop() {
			must(curve.GenerateKey(rand.Reader))
		}
	})
	b.Run(name+"/derive", func(b *testing.B) {
		for b.Loop() {
			must(own.ECDH(other))
		}
	})
}

func BenchmarkGo(b *testing.B) {
	curve(b, "P-256", ecdh.P256())
	curve(b, "X25519", ecdh.X25519())

	small := must(mlkem.GenerateKey768())
	_, smallCiphertext := small.EncapsulationKey().Encapsulate()
	b.Run("ML-KEM-768/keygen", func(b *testing.B) {
		for b.Loop() {
			must(mlkem.GenerateKey768())
		}
	})
	b.Run("ML-KEM-768/encaps", func(b *testing.B) {
		key := small.EncapsulationKey()
		for b.Loop() {
			key.Encapsulate()
		}
	})
	b.Run("ML-KEM-768/decaps", func(b *testing.B) {
		for b.Loop() {
			must(small.Decapsulate(smallCiphertext))
		}
	})

	large := must(mlkem.GenerateKey1024())
	_, largeCiphertext := large.EncapsulationKey().Encapsulate()
	b.Run("ML-KEM-1024/keygen", func(b *testing.B) {
		for b.Loop() {
			must(mlkem.GenerateKey1024())
		}
	})
	b.Run("ML-KEM-1024/encaps", func(b *testing.B) {
		key := large.EncapsulationKey()
		for b.Loop() {
			key.Encapsulate()
		}
	})
	b.Run("ML-KEM-1024/decaps", func(b *testing.B) {
		for b.Loop() {
			must(large.Decapsulate(largeCiphertext))
		}
	})
}
