// SHA-256 against the examples of NIST (FIPS 180-4, csrc.nist.gov/projects/cryptographic-standards-and-guidelines).
#include "check.h"
#include "sha256.h"

int main() {
  using msloc::sha256;
  check(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "no bytes");
  check(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "one block");
  check(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        "two blocks: the length does not fit into the first");
  check(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        "a million bytes");

  const std::string text(1000, 'q');
  for (std::size_t part = 1; part < 200; ++part) {
    msloc::Sha256 digest;
    for (std::size_t at = 0; at < text.size(); at += part) {
      const std::string piece = text.substr(at, part);
      digest.update(piece.data(), piece.size());
    }
    check(digest.hex() == sha256(text), "pieces of " + std::to_string(part) + " bytes");
  }
  return finish();
}
