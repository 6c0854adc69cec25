-- Blocks of dns-tunnel-detector in dnsdist: the file of ENFORCE_LIST_FILE, looked at every second (docs/enforcement.md).
--
-- In dnsdist.conf:
--   dofile("/etc/dnsdist/dns-tunnel-blocks.lua")
--   dnsTunnelBlocks("/var/lib/dns-tunnel/blocks.txt", {"192.0.2.99"})  -- the file; addresses for sinkhole
--
-- A line is: action, client (an address or network, * = all), domain, end (Unix seconds), divided by tabs. A file that
-- is not there blocks nothing. Rules are made anew when the file changes, so that other queries cost one rule an action.

local NAME = "dns-tunnel"
local file, sinkhole, before, made = nil, {}, nil, 0

local function action(what)
  if what == "refused" then return RCodeAction(DNSRCode.REFUSED) end
  if what == "slow" then return DelayAction(1000) end -- over UDP alone
  if what == "sinkhole" and #sinkhole > 0 then return SpoofAction(sinkhole) end
  return RCodeAction(DNSRCode.NXDOMAIN)
end

local function read()
  local handle = io.open(file, "r")
  if handle == nil then return "" end
  local text = handle:read("*a")
  handle:close()
  return text
end

local function add(selector, what)
  made = made + 1
  addAction(selector, action(what), {name = NAME .. made})
  mvRuleToTop()
end

local function take(text, now)
  for number = 1, made do rmRule(NAME .. number) end
  made = 0
  local forAll = {}
  for what, client, domain, ends in text:gmatch("([^\t\n]+)\t([^\t\n]+)\t([^\t\n]+)\t(%d+)\n") do
    if tonumber(ends) > now then
      if client == "*" then
        forAll[what] = forAll[what] or newSuffixMatchNode()
        forAll[what]:add(newDNSName(domain))
      else
        local names, clients = newSuffixMatchNode(), newNMG()
        names:add(newDNSName(domain))
        clients:addMask(client)
        add(AndRule({NetmaskGroupRule(clients), SuffixMatchNodeRule(names)}), what)
      end
    end
  end
  for what, names in pairs(forAll) do add(SuffixMatchNodeRule(names), what) end
end

local function nextEnd(text, now)
  local found = math.huge
  for ends in text:gmatch("\t(%d+)\n") do
    if tonumber(ends) > now then found = math.min(found, tonumber(ends)) end
  end
  return found
end

local due = 0

local function look()
  local now, text = os.time(), read()
  if text == before and now < due then return end
  local well, problem = pcall(take, text, now)
  if not well then errlog("cannot use " .. file .. ": " .. tostring(problem)) end
  before, due = text, nextEnd(text, now)
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
