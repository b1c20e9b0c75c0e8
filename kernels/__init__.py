"""Operations with a plain reference and a kernel each."""
