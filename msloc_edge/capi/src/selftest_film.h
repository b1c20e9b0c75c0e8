// msloc_edge/selftest.png as raw pixels, 8 bits; embed_film.py writes the source when the library is built.
#pragma once

namespace msloc {

extern const int kSelfTestWidth;
extern const int kSelfTestHeight;
extern const unsigned char kSelfTestPixels[];
extern const char* const kSelfTestSha256;  // of the PNG file, which golden results name

}  // namespace msloc
