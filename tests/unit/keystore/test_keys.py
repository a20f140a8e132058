import pickle

import pytest

from perund.keys import Keys
from perund.mnemonic import entropy_of, new_entropy, phrase_of, seed_of
from perund.setup_errors import PhraseError

# 32 zero bytes: a published vector of BIP-39.
PHRASE = "abandon " * 23 + "art"


def test_the_derivation_never_changes() -> None:
    keys = Keys.from_phrase(PHRASE)
    assert keys.node_id == "023db9a8e49254d10824db70144d9e2abc0653943ee5b849e3608c091909bb67fc"
    assert keys.wallet_seed.hex() == "e8144b94d4ffda6ee155bb7076faf7d862a281368885712e41cad9538b5b6092"
    assert keys.backup_key.hex() == "1c7bf9adc4c5c2569bacac0fad6f94dce8e0ab4f7fa21cbf5f7ae7ae0267f173"
    assert keys.participant_seed(bytes(32)).hex() == "2b2055dce9251fe7e9850c7c8a62bd2f517e2ad0f77229a3cd2da77ad29c4898"
    assert (
        keys.participant_seed(bytes(range(32))).hex()
        == "3fa6c56b18af85d112927c01a0a6f7ce4aad43e81ccaf682fa1c7648d4a78c58"
    )


def test_the_seed_is_that_of_bip_39_without_a_passphrase() -> None:
    # Computed by the definition: PBKDF2-HMAC-SHA512, 2048 rounds, salt "mnemonic".
    import hashlib

    expected = hashlib.pbkdf2_hmac("sha512", PHRASE.encode(), b"mnemonic", 2048)
    assert seed_of(bytes(32)) == expected


def test_every_purpose_and_every_share_has_a_key_of_its_own() -> None:
    keys = Keys(bytes(32))
    seeds = [keys.wallet_seed, keys.backup_key, keys.node_key.secret]
    seeds += [keys.participant_seed(bytes([n] * 32)) for n in range(20)]
    assert len(set(seeds)) == len(seeds)


def test_keys_print_only_the_node_id_and_are_not_pickled() -> None:
    keys = Keys(bytes(range(32)))
    for secret in (keys.wallet_seed.hex(), keys.backup_key.hex(), keys.node_key.to_hex(), keys.phrase):
        assert secret not in repr(keys)
        assert secret not in str(keys)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(keys)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_share_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Keys(bytes(32)).participant_seed(bytes(length))


def test_a_phrase_comes_back_however_it_is_typed() -> None:
    entropy = new_entropy()
    assert entropy_of(f"  {phrase_of(entropy).upper().replace(' ', '   ')}\n") == entropy


def test_a_wrong_phrase_is_refused_without_repeating_it() -> None:
    for phrase, expected in (
        ("abandon " * 12, "12 words"),
        ("abandon " * 23 + "hunter", "word 24"),
        ("abandon " * 24, "checksum"),
    ):
        with pytest.raises(PhraseError, match=expected) as caught:
            entropy_of(phrase)
        assert "abandon" not in str(caught.value)
        assert "hunter" not in str(caught.value)
