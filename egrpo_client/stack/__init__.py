"""The local stack: real servers from wheels on loopback, started and stopped as one.

Here live the servers (`postgres`, `valkey`, `seaweed`), the way any process is started and stopped (`processes`,
`guard`, `demoted`), and the stack that puts them together with api and worker (`local`). Nothing here imports the
service: its parts are run as processes (`python -m migrations`, `python -m worker`, …).
"""
