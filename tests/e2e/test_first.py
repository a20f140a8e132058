from tests.e2e.town import ICP, Town
async def test_it(town: Town) -> None:
    alice, bob = await town.pair("--contribute-max", "200")
    channel = await town.open(alice, bob, 242, 194)
    await town.pay(alice, channel, 7)
    await town.close(alice, channel)
    v = await town.closed(bob, channel)
    print(v)
