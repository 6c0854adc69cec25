-- Blocks of dns-tunnel-detector in dnsdist: the file of ENFORCE_LIST_FILE, looked at every second (docs/enforcement.md).
--
-- In dnsdist.conf:
--   dofile("/etc/dnsdist/dns-tunnel-blocks.lua")
--   dnsTunnelBlocks("/var/lib/dns-tunnel/blocks.txt", {"192.0.2.99"})  -- the file; addresses for sinkhole
--
-- A line is: action, client (an address or network, * = all), domain, end (Unix seconds), divided by tabs. A file that
-- is not there blocks nothing; one that cannot be read, or has a line that is none, leaves what it said before in force.
-- Rules are made anew when the file changes, so that other queries cost one rule an action.

local NAME = "dns-tunnel"
local file, sinkhole, before, made, generation = nil, {}, nil, {}, 0

local function action(what)
  if what == "refused" then return RCodeAction(DNSRCode.REFUSED) end
  if what == "slow" then return DelayAction(1000) end -- over UDP alone
  if what == "sinkhole" and #sinkhole > 0 then return SpoofAction(sinkhole) end
  return RCodeAction(DNSRCode.NXDOMAIN)
end

local NO_FILE = 2 -- ENOENT

local function read()
  local handle, problem, code = io.open(file, "r")
  if handle == nil and code == NO_FILE then return "" end
  if handle == nil then return nil, problem end
  local text, broken = handle:read("*a")
  handle:close()
  return text, broken
end

-- The rules of a text as {selector, what}; an error where a line is none.
local function rules(text, now)
  local found, forAll = {}, {}
  for line, ending in text:gmatch("([^\n]+)(\n?)") do
    local what, client, domain, ends = line:match("^([^\t]+)\t([^\t]+)\t([^\t]+)\t(%d+)$")
    if what == nil or ending == "" then error("a line is not: action, client, domain, end") end
    if tonumber(ends) > now then
      if client == "*" then
        forAll[what] = forAll[what] or newSuffixMatchNode()
        forAll[what]:add(newDNSName(domain))
      else
        local names, clients = newSuffixMatchNode(), newNMG()
        names:add(newDNSName(domain))
        clients:addMask(client)
        table.insert(found, {AndRule({NetmaskGroupRule(clients), SuffixMatchNodeRule(names)}), what})
      end
    end
  end
  for what, names in pairs(forAll) do table.insert(found, {SuffixMatchNodeRule(names), what}) end
  return found
end

-- Put rules into the place of those before, which go when all new ones are there: no query finds a gap between them.
local function replace(found)
  local old = made
  generation, made = generation + 1, {}
  for number, one in ipairs(found) do
    made[number] = NAME .. generation .. "-" .. number
    addAction(one[1], action(one[2]), {name = made[number]})
    mvRuleToTop()
  end
  for _, name in ipairs(old) do rmRule(name) end
end

local function nextEnd(text, now)
  local found = math.huge
  for ends in text:gmatch("\t(%d+)\n") do
    if tonumber(ends) > now then found = math.min(found, tonumber(ends)) end
  end
  return found
end

local due, good, said = 0, "", nil

local function look()
  local now = os.time()
  local text, problem = read()
  if text ~= nil and text == before and now < due then return end
  local well, found = false, problem
  if text ~= nil then well, found = pcall(rules, text, now) end
  if well then
    good, said = text, nil
  else
    if said ~= tostring(found) then errlog("cannot use " .. file .. ": " .. tostring(found)) end
    said = tostring(found)
    if text == nil and now < due then return end
    found = rules(good, now) -- those that have ended by now are left out
  end
  replace(found)
  before, due = text, nextEnd(good, now)
end

function dnsTunnelBlocks(path, addresses)
  file, sinkhole = path, addresses or {}
  look()
  local others = maintenance
  maintenance = function()
    if others ~= nil then others() end
    look()
  end
end
