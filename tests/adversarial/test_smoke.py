from tests.adversarial.house import *
from tests.adversarial.inhabitant import *
import time
async def test_smoke(house, alice):
    t=time.time()
    peer = await alice.open()
    print("open", time.time()-t)
    await alice.pay(ICP)
    print("pay", time.time()-t)
    alice.driver.perform(alice.driver.channel.close(alice.services.time.now(), "test"))
    await alice.closed()
    print("closed", time.time()-t)
    print(alice.events(), house.balance(alice.wallet))
